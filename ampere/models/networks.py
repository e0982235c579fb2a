"""Builds and loads the networks that training, embedding and serving run.

model = build_network(ModelSettings(), tokenizer, use_text=True)  # by ModelSettings.network
model = load_network("models/ampere")  # by config.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from ampere.config.model import EFFICIENTNET, ModelSettings
from ampere.models import model_folder
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.base import Network
from ampere.models.cn_clip import CNCLIP, load_cn_clip
from ampere.models.mllm import MLLMConfig, MLLMEmbedder, load_mllm
from ampere.models.pretrained import load_pretrained_towers, load_vision_tower
from ampere.models.sentence_embedder import (
    SentenceEmbedder,
    SentenceEmbedderConfig,
    load_sentence_embedder,
)
from ampere.models.tokenizer import encode
from ampere.models.towers.efficientnet import WEIGHTS_SHA256, load_efficientnet_weights
from ampere.models.towers.image_encoder import ImageEncoderConfig, read_image_encoder
from ampere.models.towers.text import read_text_encoder, text_encoder_width
from ampere.models.video import VideoBranch, build_vision_tower
from ampere.models.xclip_checkpoint import XCLIP_SUFFIXES
from ampere.text.normalize import readable_text

NETWORKS: Mapping[str, type[Network]] = {
    "AMPere": AMPere,
    "CNCLIP": CNCLIP,
    "MLLM": MLLMEmbedder,
    "SentenceEmbedder": SentenceEmbedder,
}
"""Architecture name in config.json -> class."""


def build_network(
    sizes: ModelSettings, tokenizer: PreTrainedTokenizerBase | None, *, use_text: bool
) -> Network:
    """Build a network with the pretrained weights that its settings name, in evaluation mode.

    Args:
        tokenizer: of AMPere's text tower; the other networks have their own.
        use_text: False for frames alone.

    Raises:
        ValueError: a weight is missing or has another shape (the message names it), or the settings
            contradict each other.
        OSError: the hub or the folder does not have such a model.
    """
    if sizes.network == "cn-clip":
        combine = sizes.combine if use_text else "visual"
        return load_cn_clip(sizes.weights, sizes.num_frames, combine, sizes.view)
    if sizes.network == "mllm":
        return load_mllm(
            MLLMConfig(
                source=sizes.weights,
                identity=model_folder.model_identity(sizes.weights),
                embedding_dim=sizes.embedding_dim if sizes.linear_layer else None,
                num_frames=sizes.num_frames,
                image_size=sizes.image_size,
                view=sizes.view,
            )
        )
    if sizes.network == "embedder":
        return load_sentence_embedder(
            SentenceEmbedderConfig(
                source=sizes.weights,
                identity=model_folder.model_identity(sizes.weights),
                use_text=use_text,
                truncate_dim=sizes.truncate_dim,
                num_frames=sizes.num_frames,
                image_size=sizes.image_size,
                view=sizes.view,
            )
        )
    assert tokenizer is not None
    model = AMPere(ampere_config(sizes, tokenizer, use_text=use_text))
    # A preset names weights for both towers, also for a system that leaves one of them out.
    load_pretrained_towers(
        model,
        sizes.vision_weights if sizes.use_vision else "",
        sizes.text_weights if use_text else "",
    )
    return model.eval()


def ampere_config(
    sizes: ModelSettings, tokenizer: PreTrainedTokenizerBase, *, use_text: bool
) -> AMPereConfig:
    """Resolve what an AMPere is built from: towers from the hub bring their own sizes.

    Raises:
        ValueError, OSError: as `build_network`.
    """
    sizes, image_encoder = resolve_vision(sizes)
    text_encoder = (
        read_text_encoder(sizes.text_weights) if use_text and sizes.text_weights else None
    )
    if text_encoder is not None:
        sizes = replace(sizes, text_width=text_encoder_width(text_encoder))
    if not sizes.linear_layer:
        width = build_vision_tower(sizes, image_encoder).width
        sizes = replace(sizes, width=width, message_width=width, embedding_dim=width)
    return AMPereConfig(
        sizes=sizes,
        vocab_size=len(tokenizer),
        pad_token_id=int(tokenizer.pad_token_id or 0),
        use_text=use_text,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        frozen_tower=frozen_tower(sizes),
    )


def input_size(sizes: ModelSettings) -> int:
    """Height and width, in pixels, of the frames that the network of some settings reads.

    Raises:
        ValueError, OSError: as `build_network`.
    """
    if sizes.network == "cn-clip":
        return AutoConfig.from_pretrained(sizes.weights).vision_config.image_size
    return resolve_vision(sizes)[0].image_size if sizes.network == "ampere" else sizes.image_size


def resolve_vision(sizes: ModelSettings) -> tuple[ModelSettings, ImageEncoderConfig | None]:
    """Return the settings with the vision tower's image size, and the tower's config if it has one.

    Raises:
        ValueError, OSError: as `read_image_encoder`.
    """
    image_encoder = read_vision_tower(sizes)
    if image_encoder is not None:
        sizes = replace(sizes, image_size=image_encoder.image_size)
    return sizes, image_encoder


def load_vision_branch(sizes: ModelSettings) -> VideoBranch:
    """Load a frozen vision tower without the rest of a network, in evaluation mode.

    Raises:
        ValueError, OSError: as `build_network`.
    """
    sizes, image_encoder = resolve_vision(sizes)
    video = VideoBranch(sizes, image_encoder)
    load_vision_tower(video, sizes.vision_weights)
    return video.eval()


def read_vision_tower(sizes: ModelSettings) -> ImageEncoderConfig | None:
    """Read the config of the vision tower if it is an image encoder of transformers.

    Returns:
        None for an X-CLIP, for EfficientNet-Lite0, and for a network without vision.

    Raises:
        ValueError, OSError: as `read_image_encoder`.
    """
    source = sizes.vision_weights
    own = not source or source == EFFICIENTNET or Path(source).suffix in XCLIP_SUFFIXES
    if own or not sizes.use_vision or AutoConfig.from_pretrained(source).model_type == "xclip":
        return None
    return read_image_encoder(source)


def frozen_tower(sizes: ModelSettings) -> str:
    """Name a frozen vision tower with all that its features depend on; empty if none is frozen."""
    if not (sizes.freeze_vision and sizes.use_vision):
        return ""
    if sizes.vision_weights == EFFICIENTNET:
        identity = f"{EFFICIENTNET}@{WEIGHTS_SHA256[:12]}"
    else:
        identity = model_folder.model_identity(sizes.vision_weights)
    view = "" if sizes.view == "center" else f"-{sizes.view}"
    return f"{identity}-{sizes.image_size}px{view}"


def pretrained_tokenizer(sizes: ModelSettings) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer of the weights that the settings name; None if they have none."""
    source = {"ampere": sizes.text_weights, "cn-clip": sizes.weights}.get(sizes.network, "")
    return AutoTokenizer.from_pretrained(source) if source else None


def check_weights(sizes: ModelSettings) -> None:
    """Check that the weights in the settings exist, before any work is done.

    Text towers are not checked here: `pretrained_tokenizer` reads their tokenizer.

    Raises:
        OSError, ValueError: the hub or the folder does not have such a model, or the file does not
            exist.
    """
    vision = sizes.vision_weights if sizes.network == "ampere" and sizes.use_vision else ""
    if Path(vision).suffix in XCLIP_SUFFIXES:
        if not Path(vision).is_file():
            raise FileNotFoundError(
                f"file not found: model.vision_weights is {vision!r}; expected an original X-CLIP "
                "checkpoint, or the hub name or folder of an X-CLIP"
            )
    else:
        read_vision_tower(sizes)
    if sizes.weights:
        AutoConfig.from_pretrained(sizes.weights)
    if vision == EFFICIENTNET:
        load_efficientnet_weights()


def load_network(folder: Path | str) -> Network:
    """Load the network of a model folder, on the CPU and in evaluation mode.

    Raises:
        ValueError: config.json has an unknown architecture, or does not match its class.
        FileNotFoundError: a file is missing.
    """
    name = model_folder.architecture(folder)
    if name is None or name not in NETWORKS:
        raise ValueError(
            f"unknown architecture in {Path(folder) / model_folder.CONFIG_FILE}: {name}; expected "
            f"one of {', '.join(NETWORKS)}. If an older version wrote the folder, train the model "
            "again"
        )
    return NETWORKS[name].from_pretrained(folder)


def text_inputs(
    network: Network,
    tokenizer: PreTrainedTokenizerBase | None,
    texts: Sequence[str | None],
    device: torch.device,
    *,
    pad_to_max: bool = False,
) -> tuple[Tensor | list[str | None] | None, Tensor | None]:
    """Convert texts to the text arguments of `Network.forward`.

    All texts that a network reads pass here: of training, embedding and queries. They are
    normalized, and those that `readable_text` takes for missing become None.

    Args:
        pad_to_max: pad token ids to `max_text_tokens`, so that every batch has the same shape.

    Returns:
        Token ids and mask, int64 [B, L], on the device; the texts themselves and None if the
        network takes strings; or None and None if it reads no text or there is none.
    """
    if not network.reads_text or not texts:
        return None, None
    texts = [readable_text(text) for text in texts]
    if network.max_text_tokens == 0:
        return texts, None
    assert tokenizer is not None
    ids, mask = encode(tokenizer, texts, network.max_text_tokens, pad_to_max=pad_to_max)
    return ids.to(device), mask.to(device)
