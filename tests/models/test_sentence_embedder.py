"""Off-the-shelf embedders, as small random models of the same classes."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    SiglipConfig,
    SiglipModel,
    SiglipProcessor,
)
from transformers.models.clip import CLIPImageProcessorPil
from transformers.models.siglip import SiglipImageProcessorPil

from ampere.config.model import ModelSettings
from ampere.config.systems import named_settings
from ampere.models.embedder import embed_pixels
from ampere.models.networks import build_network, load_network
from ampere.models.sentence_embedder import (
    SentenceEmbedder,
    SentenceEmbedderConfig,
    load_sentence_embedder,
)
from ampere.models.tokenizer import build_tokenizer
from ampere.records import Domain
from tests.helpers.models import random_frames

WIDTH = 24
VISION = {
    "hidden_size": WIDTH, "intermediate_size": 30, "num_hidden_layers": 1,
    "num_attention_heads": 3, "image_size": 32, "patch_size": 16,
}  # fmt: skip
TEXTS = ["product 1", None, "a b c"]


def save_embedder(family: str, folder: Path) -> Path:
    """Save a tiny model of two towers in the hub's layout."""
    tokenizer = build_tokenizer(["product 1"], vocab_size=5000)
    tokenizer.model_max_length = 20
    text = {
        "vocab_size": len(tokenizer), "hidden_size": WIDTH, "intermediate_size": 20,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 20,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "projection_size": WIDTH,
    }  # fmt: skip
    torch.manual_seed(0)
    if family == "siglip":
        SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)).save_pretrained(folder)
        images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
        SiglipProcessor(images, tokenizer).save_pretrained(folder)
    else:
        config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=WIDTH)
        CLIPModel(config).save_pretrained(folder)
        pil = CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
        CLIPProcessor(pil, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["siglip", "clip"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_embedder(request.param, tmp_path_factory.mktemp(request.param))


def config(source: Path, **changes: object) -> SentenceEmbedderConfig:
    given = {"source": str(source), "num_frames": 4, "image_size": 32}
    return SentenceEmbedderConfig(**given | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("dimensions", [0, 8])
def test_vectors_are_those_of_encode(source: Path, dimensions: int) -> None:
    """The mean of the visual and the text vector, each cut to its first dimensions."""
    model = load_sentence_embedder(config(source, truncate_dim=dimensions))
    base = SentenceTransformer(str(source), device="cpu")
    dim = dimensions or WIDTH
    assert model.embedding_dim == dim
    frames = random_frames(3, 4)
    images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames.flatten(0, 1)]
    visual = normalize(base.encode(images, convert_to_tensor=True)[:, :dim], dim=-1)
    visual = normalize(visual.unflatten(0, (3, 4)).mean(dim=1), dim=-1)
    text = torch.zeros(3, dim)
    encoded = base.encode([TEXTS[0], TEXTS[2]], convert_to_tensor=True)[:, :dim]
    text[[0, 2]] = normalize(encoded, dim=-1)
    whole, frames_alone, text_alone = model(frames, TEXTS, alone=True)
    torch.testing.assert_close(whole, normalize(visual + text, dim=-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(frames_alone, visual, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(text_alone, text, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole[1], visual[1], atol=1e-5, rtol=1e-4)  # without text


def test_words_alone_are_the_text_vector(source: Path) -> None:
    model = load_sentence_embedder(config(source))
    picture = random_frames(1, 1)[0].numpy()
    vectors = embed_pixels(model, None, [picture, None], ["a b", "a b"], [Domain.PAGE] * 2)
    _, _, text = model(random_frames(1, 1), ["a b"], alone=True)
    torch.testing.assert_close(torch.from_numpy(vectors[1]), text[0], atol=1e-5, rtol=1e-4)
    assert abs(vectors[0] @ vectors[1]) < 0.999


def test_saved_and_loaded_by_its_name(source: Path, tmp_path: Path) -> None:
    settings = ModelSettings(
        network="embedder", weights=str(source), image_size=32, num_frames=4, truncate_dim=8
    )
    model = build_network(settings, None, use_text=True)
    assert isinstance(model, SentenceEmbedder) and not any(
        weight.requires_grad for weight in model.parameters()
    )
    model.save_pretrained(tmp_path)
    frames = random_frames(3, 4)
    assert torch.equal(load_network(tmp_path)(frames, TEXTS), model(frames, TEXTS))
    with (source / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match="have changed"):
        load_network(tmp_path)


def test_unfit_sources_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="truncate_dim is 25; .* has 24 dimensions"):
        load_sentence_embedder(config(source, truncate_dim=25))
    tokenizer = build_tokenizer(["a"])
    words = BertConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=30,
    )  # fmt: skip
    BertModel(words).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not encode image input; it encodes text"):
        load_sentence_embedder(config(tmp_path))


@pytest.mark.parametrize("name", ["embedding-gemma", "qwen3-vl-embedding", "siglip2"])
def test_presets_by_name(name: str) -> None:
    settings = named_settings(f"small+{name}")
    assert settings.model.network == "embedder" and settings.model.weights
    assert settings.train.epochs == 0
