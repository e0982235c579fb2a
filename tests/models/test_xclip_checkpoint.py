"""Original checkpoints, tested with a small network that has the original's names and layers."""

import dataclasses
import os
import re
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ampere.config.model import ModelSettings
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.pretrained import load_pretrained_towers
from ampere.models.towers.base import normalize_pixels
from tests.helpers.models import VOCAB_SIZE, random_frames

WIDTH, HEADS, FRAMES = 128, 2, 4
FEATURES = 64  # width of frame features: one head of the integration


class QuickGELU(nn.Module):
    def forward(self, stream: Tensor) -> Tensor:
        return stream * torch.sigmoid(1.702 * stream)


class OriginalBlock(nn.Module):
    """Cross-frame attention as in the X-CLIP paper, with the original's names."""

    def __init__(self) -> None:
        super().__init__()
        self.message_fc = nn.Linear(WIDTH, WIDTH)
        self.message_ln, self.ln_1, self.ln_2 = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.message_attn, self.attn = (
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in range(2)
        )
        layers = {
            "c_fc": nn.Linear(WIDTH, 4 * WIDTH),
            "gelu": QuickGELU(),
            "c_proj": nn.Linear(4 * WIDTH, WIDTH),
        }
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, stream: Tensor) -> Tensor:
        """Mix frames and positions, float [B * F, S, V]."""
        messages = self.message_fc(stream[:, 0]).unflatten(0, (-1, FRAMES))
        normed = self.message_ln(messages)
        messages = messages + self.message_attn(normed, normed, normed)[0]
        longer = torch.cat([stream, messages.flatten(0, 1)[:, None]], dim=1)
        normed = self.ln_1(longer)
        stream = (longer + self.attn(normed, normed, normed)[0])[:, :-1]
        return stream + self.mlp(self.ln_2(stream))


class OriginalIntegrationBlock(nn.Module):
    """A block over the frames, with the original's names."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = (nn.LayerNorm(FEATURES) for _ in range(2))
        self.attn = nn.MultiheadAttention(FEATURES, FEATURES // 64, batch_first=True)
        layers = {
            "c_fc": nn.Linear(FEATURES, 256),
            "gelu": QuickGELU(),
            "c_proj": nn.Linear(256, FEATURES),
        }
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, stream: Tensor) -> Tensor:
        normed = self.ln_1(stream)
        stream = stream + self.attn(normed, normed, normed)[0]
        return stream + self.mlp(self.ln_2(stream))


class OriginalIntegration(nn.Module):
    """X-CLIP's `mit`."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(1, FRAMES, FEATURES))
        self.resblocks = nn.Sequential(*(OriginalIntegrationBlock() for _ in range(layers)))

    def forward(self, z: Tensor) -> Tensor:
        """Video feature: float [B, F, W] -> [B, W]."""
        return (z + self.resblocks(z + self.positional_embedding)).mean(dim=1)


class OriginalTower(nn.Module):
    """X-CLIP's `visual`, with its `mit`."""

    def __init__(self, sizes: ModelSettings) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, sizes.patch_size, stride=sizes.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(WIDTH))
        self.positional_embedding = nn.Parameter(
            torch.empty((sizes.image_size // sizes.patch_size) ** 2 + 1, WIDTH)
        )
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(
            *(OriginalBlock() for _ in range(sizes.vision_layers))
        )
        self.proj = nn.Parameter(torch.empty(WIDTH, sizes.message_width))
        self.mit = OriginalIntegration(layers=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Frame features: float [B * F, 3, H, W] -> [B * F, message_width]."""
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        classes = self.class_embedding.expand(len(pixels), 1, -1)
        stream = self.ln_pre(torch.cat([classes, patches], dim=1) + self.positional_embedding)
        return self.ln_post(self.transformer.resblocks(stream)[:, 0]) @ self.proj


SIZES: dict[str, Any] = {
    "vision_width": WIDTH, "vision_heads": HEADS, "message_width": FEATURES, "width": FEATURES,
    "heads": FEATURES // 64, "mlp_width": 256, "temporal_layers": 1,
}  # fmt: skip


@pytest.fixture
def xclip_model(config: AMPereConfig) -> AMPere:
    """A model without text, with X-CLIP's head width and number of integration layers."""
    sizes = dataclasses.replace(config.sizes, **SIZES)
    return AMPere(
        AMPereConfig(sizes=sizes, vocab_size=VOCAB_SIZE, pad_token_id=0, use_text=False)
    ).eval()


@pytest.fixture
def original(xclip_model: AMPere) -> OriginalTower:
    """All weights are random: equal norms or zero biases would hide that two were swapped."""
    torch.manual_seed(3)
    tower = OriginalTower(xclip_model.config.sizes).eval()
    with torch.no_grad():
        for name, weight in tower.named_parameters():
            scale = 1.0 if re.search(r"ln_\w+\.weight", name) else 0.0
            weight.normal_(mean=scale, std=0.1)
    return tower


def whole_xclip(original: OriginalTower) -> dict[str, Tensor]:
    """The tower's weights, with some of X-CLIP's other parts."""
    others = (
        "token_embedding.weight", "positional_embedding", "ln_final.bias", "text_projection",
        "transformer.resblocks.0.attn.in_proj_weight", "logit_scale", "prompts_generator.alpha",
        "prompts_visual_ln.weight", "prompts_visual_proj",
    )  # fmt: skip
    weights = original.state_dict()
    return {
        n if n.startswith("mit.") else f"visual.{n}": w for n, w in weights.items()
    } | dict.fromkeys(others, torch.ones(3))


def load(model: AMPere, content: object, path: Path) -> None:
    torch.save(content, path)
    load_pretrained_towers(model, str(path), "")


@pytest.mark.parametrize("layout", ["plain", "under model", "data parallel", "half"])
def test_outputs_equal_the_original(
    xclip_model: AMPere, original: OriginalTower, tmp_path: Path, layout: str
) -> None:
    weights = whole_xclip(original)
    if layout == "half":
        weights = {name: weight.half() for name, weight in weights.items()}
        original.half().float()
    content: Any = weights
    if layout == "under model":
        content = {
            "model": weights,
            "optimizer": {"state": {0: torch.zeros(2)}},
            "epoch": 3,
            "max_accuracy": 83.9,
        }
    if layout == "data parallel":
        content = {"model": {f"module.{name}": weight for name, weight in weights.items()}}
    load(xclip_model, content, tmp_path / "k600_16_8.pth")

    frames = random_frames(3, FRAMES)
    expected = original(normalize_pixels(frames.flatten(0, 1))).unflatten(0, (3, FRAMES))
    v, z = xclip_model.video(frames)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(v, original.mit(expected), rtol=1e-4, atol=1e-5)
    # Also for a page, which takes a single pass.
    page = original(normalize_pixels(frames[0, :1].expand(FRAMES, -1, -1, -1)))
    torch.testing.assert_close(xclip_model.video(frames[:1, :1])[1][0], page, rtol=1e-4, atol=1e-5)


def test_outputs_depend_on_every_original_weight(original: OriginalTower) -> None:
    """Otherwise comparing outputs would miss weights that are not loaded."""
    pixels = normalize_pixels(random_frames(1, FRAMES)[0])
    original.mit(original(pixels)[None]).square().sum().backward()
    unused = [
        name
        for name, weight in original.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert unused == []


def test_checkpoint_settings_load_without_yacs(
    xclip_model: AMPere, original: OriginalTower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VideoX saves a yacs.config.CfgNode beside the weights; reading it does not require yacs."""
    settings_class = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    with monkeypatch.context() as patch:
        yacs, config = ModuleType("yacs"), ModuleType("yacs.config")
        config.CfgNode = settings_class  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "yacs", yacs)
        patch.setitem(sys.modules, "yacs.config", config)
        settings = settings_class(DATA=settings_class(NUM_FRAMES=8))
        settings.__dict__["__immutable__"] = True
        torch.save({"model": whole_xclip(original), "config": settings}, tmp_path / "k400_16_8.pth")
    load_pretrained_towers(xclip_model, str(tmp_path / "k400_16_8.pth"), "")
    assert torch.equal(xclip_model.video.projection.weight, original.proj.t())
    allowed = torch.serialization.get_safe_globals()
    assert not any("CfgNode" in str(entry) for entry in allowed)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("visual.proj", "missing visual_projection.weight"),
        ("visual.class_embedding", "missing vision_model.embeddings.class_embedding"),
        (
            "visual.transformer.resblocks.1.message_ln.bias",
            "missing vision_model.encoder.layers.1.message_ln.bias",
        ),
        ("visual.transformer.resblocks.0.attn.in_proj_bias", "layers.0.self_attn.k_proj.bias"),
        ("mit.positional_embedding", "missing mit.position_embedding"),
        ("mit.resblocks.0.mlp.c_proj.weight", "missing mit.encoder.layers.0.mlp.fc2.weight"),
    ],
)
def test_missing_weights_are_named(
    xclip_model: AMPere, original: OriginalTower, tmp_path: Path, name: str, missing: str
) -> None:
    weights = whole_xclip(original)
    del weights[name]
    with pytest.raises(ValueError, match=re.escape(missing)):
        load(xclip_model, weights, tmp_path / "x.pth")


@pytest.mark.parametrize(
    "name",
    [
        "visual.new_part.weight",
        "head.weight",
        "visual.transformer.resblocks.0.adapter.in_proj_bias",
    ],
)
def test_unknown_weights_are_named(
    xclip_model: AMPere, original: OriginalTower, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"do not fit the model: unexpected {name}")):
        load(xclip_model, whole_xclip(original) | {name: torch.zeros(6)}, tmp_path / "x.pth")


def test_deeper_integration_loads_its_first_layer(
    config: AMPereConfig, original: OriginalTower, tmp_path: Path
) -> None:
    """The paper's integration has four layers, X-CLIP's one."""
    sizes = dataclasses.replace(config.sizes, **SIZES | {"temporal_layers": 3})
    model = AMPere(dataclasses.replace(config, sizes=sizes, use_text=False))
    assert model.video is not None and model.video.integration is not None
    second = model.video.integration.encoder.layers[1].mlp.fc1.weight.clone()
    load(model, whole_xclip(original), tmp_path / "x.pth")
    first, *others = model.video.integration.encoder.layers
    assert torch.equal(first.mlp.fc1.weight, original.mit.resblocks[0].mlp.c_fc.weight)
    assert torch.equal(others[0].mlp.fc1.weight, second)
    assert torch.equal(
        model.video.integration.position_embedding, original.mit.positional_embedding
    )
    weights = {
        name: weight
        for name, weight in whole_xclip(original).items()
        if not name.startswith("mit.resblocks")
    }
    with pytest.raises(ValueError, match="missing mit.encoder.layers.0.*; and [0-9]+ more"):
        load(model, weights, tmp_path / "x.pth")


def test_model_without_integration_ignores_its_weights(
    config: AMPereConfig, original: OriginalTower, tmp_path: Path
) -> None:
    sizes = dataclasses.replace(config.sizes, **SIZES | {"temporal_layers": 0})
    model = AMPere(dataclasses.replace(config, sizes=sizes, use_text=False))
    load(model, whole_xclip(original), tmp_path / "x.pth")
    assert model.video is not None and torch.equal(model.video.projection.weight, original.proj.t())


def test_extra_layers_and_other_shapes_are_named(
    xclip_model: AMPere, original: OriginalTower, tmp_path: Path
) -> None:
    block = "visual.transformer.resblocks"
    weights = whole_xclip(original)
    with pytest.raises(ValueError, match=r"unexpected vision_model.encoder.layers.2.mlp.fc1.bias"):
        load(
            xclip_model,
            weights | {f"{block}.2.mlp.c_fc.bias": torch.zeros(512)},
            tmp_path / "x.pth",
        )
    with pytest.raises(
        ValueError, match=r"position_embedding.weight is \[10, 128\], expected \[5, 128\]"
    ):
        load(
            xclip_model,
            weights | {"visual.positional_embedding": torch.zeros(10, 128)},
            tmp_path / "x.pth",
        )
    with pytest.raises(
        ValueError, match=r"visual_projection.weight is \[128, 64\], expected \[64, 128\]"
    ):
        load(xclip_model, weights | {"visual.proj": original.proj.detach().t()}, tmp_path / "x.pth")


def test_different_head_count_raises(
    config: AMPereConfig, original: OriginalTower, tmp_path: Path
) -> None:
    sizes = dataclasses.replace(config.sizes, **SIZES | {"vision_heads": 4})
    model = AMPere(dataclasses.replace(config, sizes=sizes, use_text=False))
    with pytest.raises(ValueError, match="num_attention_heads 2; the model was built with 4"):
        load(model, whole_xclip(original), tmp_path / "x.pth")


class Trap:
    """Creates a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("trap", [True, False])
def test_objects_are_named_and_not_unpickled(
    xclip_model: AMPere, tmp_path: Path, trap: bool, zipped: bool
) -> None:
    content = {"model": {}, "extra": Trap(tmp_path / "sprung") if trap else torch.nn.Linear(2, 2)}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    name = r"\w+\.mkdir" if trap else r"torch\.nn\.modules\.linear\.Linear"
    with pytest.raises(
        ValueError, match=rf"x.pth holds a Python object \({name}\), which is not unpickled"
    ) as caught:
        load_pretrained_towers(xclip_model, str(tmp_path / "x.pth"), "")
    assert caught.value.__context__ is None  # torch's message, which advises unpickling
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>not found</html>", b"hello world", b"PK\x03\x04 cut short", b"\x80\x02}"],
)
def test_damaged_files_raise(xclip_model: AMPere, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"x.pth cannot be read; expected an undamaged file that torch.save wrote"
    ):
        load_pretrained_towers(xclip_model, str(tmp_path / "x.pth"), "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(2), "holds a Tensor; expected named tensors"),
        (
            {"state_dict": {"visual.proj": torch.zeros(2)}},
            r"holds the keys \['state_dict'\]; expected named tensors",
        ),
        ({"model": [1, 2]}, "holds a list"),
    ],
)
def test_files_without_named_tensors_raise(
    xclip_model: AMPere, tmp_path: Path, content: object, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        load(xclip_model, content, tmp_path / "x.pt")


def test_missing_file_raises(xclip_model: AMPere, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"k600_16_8.pth is not a file; expected an X-CLIP checkpoint"
    ):
        load_pretrained_towers(xclip_model, str(tmp_path / "k600_16_8.pth"), "")
