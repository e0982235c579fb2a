"""LoRA adapters: what is trained, and that folding them in changes no vector."""

import dataclasses
from pathlib import Path

import pytest
import torch

from ampere.config.model import EFFICIENTNET, ModelSettings
from ampere.config.settings import Settings
from ampere.config.train import TrainSettings
from ampere.models.ampere import AMPere
from ampere.models.lora import adapted_layers, add_lora, merge_lora, without_adapters
from ampere.models.networks import build_network, load_network
from ampere.models.tokenizer import build_tokenizer
from ampere.training.state import trainable
from tests.helpers.models import random_frames, random_tokens
from tests.models.test_pretrained import save_xclip
from tests.models.test_towers import save_encoder, save_roberta

# Layers of attention: X-CLIP's two layers have two attentions each.
VISION = {"xclip": 16, "clip": 8, "siglip": 8, "dinov3": 8}


def build(sizes: ModelSettings, folder: Path, vision: str = "xclip") -> AMPere:
    """A network on a published vision tower and a RoBERTa, in training mode without dropout."""
    tokenizer = save_roberta(folder / "text")
    if vision == "xclip":
        save_xclip(folder / vision)
    else:
        save_encoder(vision, folder / vision)
    weights = {"vision_weights": str(folder / vision), "text_weights": str(folder / "text")}
    settings = dataclasses.replace(sizes, **weights)
    model = build_network(settings, tokenizer, use_text=True)
    assert isinstance(model, AMPere)
    return model


def train_a_step(model: AMPere) -> None:
    """Change every adapter; its second matrix is zero at first."""
    for _ in range(2):
        model(random_frames(2, 4), *random_tokens(2, 5))[:, 0].sum().backward()
        with torch.no_grad():
            for weight in trainable(model).values():
                assert weight.grad is not None
                weight -= 0.1 * weight.grad.sign()
                weight.grad = None


@pytest.mark.parametrize("vision", VISION)
def test_towers_train_adapters_alone(vision: str, sizes: ModelSettings, tmp_path: Path) -> None:
    """All other parts train as before; every trainable weight gets a gradient, as DDP requires."""
    model = build(sizes, tmp_path, vision).train()
    inputs = random_frames(2, 4), *random_tokens(2, 5)
    before = model.eval()(*inputs)
    rest = {name for name in trainable(model) if not name.startswith(("video.tower.", "text."))}
    add_lora(model, rank=2)
    assert torch.equal(model(*inputs), before)
    adapters = {name: weight for name, weight in trainable(model).items() if ".lora_" in name}
    assert trainable(model).keys() - adapters.keys() == rest
    in_vision = [name for name in adapters if name.startswith("video.tower.")]
    in_text = [name for name in adapters if name.startswith("text.")]
    assert len(in_vision) == 2 * VISION[vision] and len(in_text) == 2 * 4
    assert all(2 in weight.shape for weight in adapters.values())

    groups = model.parameter_groups()
    assert {id(weight) for weight in groups["text"]} == {id(adapters[name]) for name in in_text}
    assert {id(adapters[name]) for name in in_vision} < {id(weight) for weight in groups["video"]}
    frozen = {n: w.clone() for n, w in model.named_parameters() if not w.requires_grad}
    train_a_step(model.train())
    assert all(torch.equal(model.get_parameter(name), weight) for name, weight in frozen.items())


def test_folding_adapters_in_changes_no_vector(sizes: ModelSettings, tmp_path: Path) -> None:
    """The folder has a plain network: the same names, the same settings."""
    model = build(sizes, tmp_path)
    names, inputs = list(model.state_dict()), (random_frames(2, 4), *random_tokens(2, 5))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    add_lora(model, rank=2)
    train_a_step(model)
    adapted = model(*inputs)
    folded = without_adapters(model, trainable(model))
    assert torch.equal(model(*inputs), adapted)  # not changed
    merge_lora(model)
    assert not adapted_layers(model) and list(model.state_dict()) == names
    torch.testing.assert_close(model(*inputs), adapted, atol=1e-5, rtol=0)
    changed = {n for n, w in model.state_dict().items() if not torch.equal(w, before[n])}
    assert (
        changed <= folded.keys() and "text.encoder.layer.0.attention.self.query.weight" in changed
    )
    for name, weight in folded.items():
        assert torch.equal(model.get_parameter(name), weight), name
    model.save_pretrained(tmp_path / "model")
    assert torch.equal(load_network(tmp_path / "model")(*inputs), model(*inputs))


def test_frozen_towers_and_towers_from_scratch_have_no_adapters(
    sizes: ModelSettings, tmp_path: Path
) -> None:
    save_xclip(tmp_path)
    weights = dataclasses.replace(sizes, vision_weights=str(tmp_path))
    for settings in (sizes, dataclasses.replace(weights, freeze_vision=True)):
        model = build_network(settings, build_tokenizer(["a"]), use_text=True)
        before = trainable(model).keys()
        add_lora(model, rank=2)
        assert trainable(model).keys() == before


def test_tower_without_attention_is_refused(sizes: ModelSettings, tmp_path: Path) -> None:
    model = build(sizes, tmp_path, "convnext")
    with pytest.raises(ValueError, match=r"ImageEncoderTower has no attention layers; .*--model\."):
        add_lora(model, rank=2)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ({}, "llm"),
        ({"vision_weights": "x", "freeze_vision": True}, "llm"),
        ({"vision_weights": "x", "use_vision": False}, "llm"),
        ({"vision_weights": EFFICIENTNET}, "llm"),
        ({"text_weights": "x"}, "none"),
        ({"network": "cn-clip", "weights": "x"}, "llm"),
    ],
)
def test_settings_without_a_tower_for_adapters_are_refused(
    model: dict[str, object], text: str
) -> None:
    train = TrainSettings(lora_rank=4, text=text)  # type: ignore[arg-type]
    sizes = ModelSettings(**model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lora_rank is 4, but no tower can have adapters: model"):
        Settings(model=sizes, train=train)


def test_one_published_tower_is_enough() -> None:
    lora = TrainSettings(lora_rank=4)
    Settings(model=ModelSettings(vision_weights="x", text_weights="y"), train=lora)
    Settings(model=ModelSettings(vision_weights=EFFICIENTNET, text_weights="y"), train=lora)
    Settings(model=ModelSettings(vision_weights="x", use_vision=True), train=lora)
