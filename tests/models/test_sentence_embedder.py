"""Off-the-shelf embedders, as small random models of the same classes."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize
from transformers import (
    AutoModel,
    AutoProcessor,
    BertConfig,
    BertModel,
    EmbeddingGemma2Model,
    Qwen3VLModel,
    Siglip2Model,
    SiglipModel,
)
from transformers.utils import is_torchvision_available

from ampere.config.model import ModelSettings
from ampere.config.systems import named_settings
from ampere.models.embedder import embed_pixels
from ampere.models.networks import build_network, load_network
from ampere.models.picture_processors import PROCESSORS, picture_processors
from ampere.models.sentence_embedder import (
    SentenceEmbedder,
    SentenceEmbedderConfig,
    load_sentence_embedder,
)
from ampere.models.tokenizer import build_tokenizer
from ampere.records import Domain
from tests.helpers.embedders import FAMILIES, WIDTH, save_embedder
from tests.helpers.models import random_frames

TEXTS = ["product 1", None, "a b c"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of each family's model."""
    return {name: save_embedder(name, tmp_path_factory.mktemp(name)) for name in FAMILIES}


@pytest.fixture(params=list(FAMILIES))
def source(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


def config(source: Path, **changes: object) -> SentenceEmbedderConfig:
    given = {"source": str(source), "num_frames": 4, "image_size": 32}
    return SentenceEmbedderConfig(**given | changes)  # type: ignore[arg-type]


def pictures(frames: torch.Tensor) -> list[Image.Image]:
    """uint8 [B, F, 3, H, W] -> B * F pictures."""
    return [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames.flatten(0, 1)]


@pytest.mark.parametrize("dimensions", [0, 8])
def test_vectors_are_those_of_encode(source: Path, dimensions: int) -> None:
    """The mean of the visual and the text vector, each cut to its first dimensions."""
    model = load_sentence_embedder(config(source, truncate_dim=dimensions))
    with picture_processors():
        base = SentenceTransformer(str(source), device="cpu")
    dim = dimensions or WIDTH
    assert model.embedding_dim == dim
    frames = random_frames(3, 4)
    images = base.encode([{"image": [image]} for image in pictures(frames)], convert_to_tensor=True)
    visual = normalize(images[:, :dim], dim=-1)
    visual = normalize(visual.unflatten(0, (3, 4)).mean(dim=1), dim=-1)
    text = torch.zeros(3, dim)
    text_kwargs = model.base[0].processing_kwargs.get("text", {})
    encoded = base.encode(
        [TEXTS[0], TEXTS[2]], convert_to_tensor=True, processing_kwargs={"text": text_kwargs}
    )
    text[[0, 2]] = normalize(encoded[:, :dim], dim=-1)
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


def test_words_alone_encode_no_picture(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The black frames in their place would cost more than the words."""
    model = load_sentence_embedder(config(folders["clip"]))
    encode, kinds = model.base.encode, []

    def recorded(inputs: list[dict[str, object]], **options: object) -> torch.Tensor:
        kinds.extend(kind for entry in inputs for kind in entry)
        return encode(inputs, **options)

    monkeypatch.setattr(model.base, "encode", recorded)
    picture = random_frames(1, 1)[0].numpy()
    embed_pixels(model, None, [None, None], ["a b", "a"], [Domain.PAGE] * 2)
    assert kinds == ["text", "text"]
    embed_pixels(model, None, [None, picture], ["a b", None], [Domain.PAGE] * 2)
    assert kinds[2:] == ["image", "text"]


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


CLASSES = {
    "embedding-gemma": EmbeddingGemma2Model,
    "qwen3-vl-embedding": Qwen3VLModel,
    "siglip": SiglipModel,
    "siglip2": Siglip2Model,
}


@pytest.mark.parametrize("family", ["embedding-gemma", "qwen3-vl-embedding"])
@torch.inference_mode()
def test_pooling_of_language_models(folders: dict[str, Path], family: str) -> None:
    """The mean of all tokens, or the last token, computed by the model's own class."""
    source, last = folders[family], family == "qwen3-vl-embedding"
    network = AutoModel.from_pretrained(source)
    assert type(network) is CLASSES[family]
    with picture_processors():
        processor = AutoProcessor.from_pretrained(source)
    frames = random_frames(3, 1)
    images = [[image] for image in pictures(frames)]
    if last:
        contents = [[{"type": "image", "image": image}] for (image,) in images]
        inputs = processor.apply_chat_template(
            [[{"role": "user", "content": content}] for content in contents],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip
    else:
        inputs = processor(images=images, return_tensors="pt")
    hidden = network(**inputs).last_hidden_state
    expected = normalize(hidden[:, -1] if last else hidden.mean(dim=1), dim=-1)
    model = load_sentence_embedder(config(source))
    torch.testing.assert_close(model(frames), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
@torch.inference_mode()
def test_texts_of_siglip_are_padded_as_in_its_training(
    folders: dict[str, Path], family: str
) -> None:
    """The vector of a text does not depend on the other texts of its batch."""
    source = folders[family]
    model = load_sentence_embedder(config(source))
    frames, texts = random_frames(2, 1), ["a", "a b c d e f"]
    text = model(frames, texts, alone=True)[2]
    inputs = AutoProcessor.from_pretrained(source)(
        text=texts, padding="max_length", max_length=20, return_tensors="pt"
    )
    network = AutoModel.from_pretrained(source)
    assert type(network) is CLASSES[family]
    expected = normalize(network.get_text_features(**inputs).pooler_output, dim=-1)
    torch.testing.assert_close(text, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        model(frames[:1], ["a"], alone=True)[2], expected[:1], atol=1e-5, rtol=1e-4
    )


def test_words_are_never_read_as_a_file(source: Path, tmp_path: Path) -> None:
    """Nor do special tokens request a picture."""
    model = load_sentence_embedder(config(source))
    path = str(tmp_path / "a.png")
    pictures(random_frames(1, 1))[0].save(path)
    special = model.base.tokenizer.all_special_tokens
    visual, text = model(random_frames(2, 1), [path, f"a {' '.join(special)} b"], alone=True)[1:]
    _, plain = model(random_frames(1, 1), ["a b"], alone=True)[1:]
    assert visual[0] @ text[0] < 0.999
    torch.testing.assert_close(text[1], plain[0], atol=1e-5, rtol=1e-4)


def test_weights_keep_their_dtype(folders: dict[str, Path], tmp_path: Path) -> None:
    """EmbeddingGemma 2 is published in bfloat16; vectors are float32 of length 1."""
    source = save_embedder("embedding-gemma", tmp_path)
    EmbeddingGemma2Model.from_pretrained(source).bfloat16().save_pretrained(source)
    model = load_sentence_embedder(config(source))
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    frames = random_frames(2, 2)
    vectors = model(frames, ["a", None])
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))
    exact = load_sentence_embedder(config(folders["embedding-gemma"]))(frames, ["a", None])
    torch.testing.assert_close(vectors, exact, atol=0.02, rtol=0)


@pytest.mark.skipif(not is_torchvision_available(), reason="requires torchvision")
@pytest.mark.parametrize("family", ["embedding-gemma", "qwen3-vl-embedding"])
def test_picture_processors_prepare_what_transformers_does(
    folders: dict[str, Path], family: str
) -> None:
    """Equal tokens and patches; pixels differ by the two libraries' rounding when they resize."""
    source = folders[family]
    model_type = AutoModel.from_pretrained(source).config.model_type
    own, theirs = (
        PROCESSORS[model_type].from_pretrained(source),
        AutoProcessor.from_pretrained(source),
    )
    images = [[image] for image in pictures(random_frames(3, 1))]
    placeholders = [own.image_token] * 3
    a, b = (each(images=images, text=placeholders, return_tensors="pt") for each in (own, theirs))
    assert a.keys() == b.keys()
    for name, value in a.items():
        atol = 0.02 if name == "pixel_values" else 0
        torch.testing.assert_close(value, b[name], atol=atol, rtol=0)


def test_more_dimensions_than_the_source_has(source: Path) -> None:
    with pytest.raises(ValueError, match="truncate_dim is 25; .* has 24 dimensions"):
        load_sentence_embedder(config(source, truncate_dim=25))


def test_sources_without_pictures_are_refused(tmp_path: Path) -> None:
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
