"""The networks that training, embedding and serving run, each by its name in `ModelSettings.network`.

model = build_network(ModelSettings(), tokenizer, use_text=True)
model = load_network("models/ampere")  # whichever it is
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from ampere.config.model import ModelSettings
from ampere.models import model_folder as saved
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.cn_clip import CNCLIP, load_cn_clip
from ampere.models.mllm import MLLMConfig, MLLMEmbedder, load_mllm
from ampere.models.model_folder import model_identity
from ampere.models.pretrained import load_pretrained_towers
from ampere.models.tokenizer import encode
from ampere.models.xclip_checkpoint import SUFFIXES

NETWORKS: Mapping[str, Any] = {network.__name__: network for network in (AMPere, CNCLIP)} | {
    "MLLM": MLLMEmbedder
}


class Network(Protocol):
    """What all networks have in common; each is also an `nn.Module`.

    Attributes:
        embedding_dim: D.
        image_size: height and width of the frames, in pixels.
        num_frames: of a clip; a page has one.
        reads_text: whether texts count.
        max_text_tokens: of a text; 0: the network takes the texts themselves.
    """

    embedding_dim: int
    image_size: int
    num_frames: int
    reads_text: bool
    max_text_tokens: int

    def __call__(
        self, frames: Tensor, texts: Any, token_mask: Tensor | None, domains: Tensor | None
    ) -> Tensor:
        """float32 [B, D] of uint8 frames [B, F, 3, H, W] and of what `text_inputs` made of their texts."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]: ...

    def enable_gradient_checkpointing(self) -> None: ...

    def save_pretrained(
        self, folder: Path | str, tokenizer: Any = None, facts: Any = None
    ) -> None: ...


def build_network(
    sizes: ModelSettings, tokenizer: PreTrainedTokenizerBase | None, *, use_text: bool
) -> Any:
    """A new `Network` with the pretrained weights that its settings name, in evaluation mode.

    Args:
        tokenizer: of AMPere's text tower; the other networks have their own.
        use_text: False for pictures alone.

    Raises:
        ValueError: a weight is missing or does not fit (the message names it), or the settings do not fit each other.
        OSError: the hub or the folder does not have such a model.
    """
    if sizes.network == "cn-clip":
        return load_cn_clip(
            sizes.weights, sizes.num_frames, sizes.combine if use_text else "visual"
        )
    if sizes.network == "mllm":
        return load_mllm(
            MLLMConfig(
                source=sizes.weights,
                identity=model_identity(sizes.weights),
                embedding_dim=sizes.embedding_dim if sizes.linear_layer else None,
                num_frames=sizes.num_frames,
                image_size=sizes.image_size,
            )
        )
    assert tokenizer is not None
    model = AMPere(
        AMPereConfig(
            sizes=sizes,
            vocab_size=len(tokenizer),
            pad_token_id=int(tokenizer.pad_token_id or 0),
            use_text=use_text,
        )
    )
    # A system without one of the towers keeps the preset's names of weights for both.
    load_pretrained_towers(
        model,
        sizes.vision_weights if sizes.use_vision else "",
        sizes.text_weights if use_text else "",
    )
    return model.eval()


def pretrained_tokenizer(sizes: ModelSettings) -> PreTrainedTokenizerBase | None:
    """The tokenizer that comes with the weights that the settings name, or None where none does."""
    source = {"ampere": sizes.text_weights, "cn-clip": sizes.weights, "mllm": ""}[sizes.network]
    return AutoTokenizer.from_pretrained(source) if source else None


def check_weights(sizes: ModelSettings) -> None:
    """Look whether the weights that the settings name can be had, before any work.

    Those of a text tower have their tokenizer read, see `pretrained_tokenizer`.

    Raises:
        OSError, ValueError: the hub or the folder does not have such a model, or there is no such file.
    """
    seen = sizes.vision_weights if sizes.network == "ampere" and sizes.use_vision else ""
    if Path(seen).suffix in SUFFIXES:
        if not Path(seen).is_file():
            raise FileNotFoundError(
                f"model.vision_weights is {seen!r}, and there is no such file; give an original X-CLIP checkpoint, or "
                "the hub name or folder of an X-CLIP"
            )
    elif seen:
        AutoConfig.from_pretrained(seen)
    if sizes.weights:
        AutoConfig.from_pretrained(sizes.weights)


def load_network(folder: Path | str) -> Any:
    """The `Network` that a model folder holds, on the CPU and in evaluation mode.

    Raises:
        ValueError: config.json names no network of ampere, or does not fit the one it names.
        FileNotFoundError: a file is not there.
    """
    name = saved.architecture(folder)
    if name is None or name not in NETWORKS:
        raise ValueError(
            f"{Path(folder) / saved.CONFIG_FILE} is of {name or 'no architecture that it names'}; ampere has "
            f"{', '.join(NETWORKS)}. A folder of an older version: train it anew"
        )
    return NETWORKS[name].from_pretrained(folder)


def text_inputs(
    network: Network,
    tokenizer: PreTrainedTokenizerBase | None,
    texts: Sequence[str | None],
    device: torch.device,
    *,
    fixed: bool = False,
) -> tuple[Any, Tensor | None]:
    """What a network takes of some texts: token ids and mask, the texts themselves, or nothing.

    Args:
        fixed: the tokens of every batch are of one shape.
    """
    if not network.reads_text or not texts:
        return None, None
    if network.max_text_tokens == 0:
        return list(texts), None
    assert tokenizer is not None
    ids, mask = encode(tokenizer, texts, network.max_text_tokens, fixed=fixed)
    return ids.to(device), mask.to(device)
