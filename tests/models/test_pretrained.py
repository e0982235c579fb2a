import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedTokenizerBase,
    XCLIPConfig,
    XCLIPModel,
)

from ampere.config.model import ModelSettings
from ampere.config.systems import SYSTEMS, named_settings
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.networks import build_network, check_weights
from ampere.models.pretrained import _load_xclip, load_pretrained_towers
from ampere.models.tokenizer import build_tokenizer
from ampere.models.towers.base import normalize_pixels
from ampere.models.video import VideoBranch
from tests.helpers.models import VOCAB_SIZE, change_weights, random_frames, random_tokens


def shake(network: nn.Module) -> None:
    """Perturb every weight: equal norms or zero biases would hide that two were swapped."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)


def save_xclip(folder: Path, **vision: int) -> XCLIPModel:
    """Save a tiny X-CLIP of the fixture's sizes, changed by `vision`."""
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    tower = {
        "hidden_size": 24, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 3, "image_size": 32, "patch_size": 16, "num_frames": 4,
        "mit_hidden_size": 16, "mit_intermediate_size": 40, "mit_num_attention_heads": 2,
    }  # fmt: skip
    torch.manual_seed(5)
    config = XCLIPConfig(
        text_config=small,
        vision_config=tower | vision,
        projection_dim=16,
        prompt_layers=1,
        prompt_num_attention_heads=2,
    )
    pretrained = XCLIPModel(config).eval()
    shake(pretrained)
    pretrained.save_pretrained(folder)
    return pretrained


def save_bert(folder: Path, vocab_size: int = VOCAB_SIZE) -> BertForMaskedLM:
    """Save a tiny BERT with a language modeling head, as `hfl/rbt6` has it."""
    torch.manual_seed(6)
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    pretrained = BertForMaskedLM(config).eval()
    shake(pretrained)
    pretrained.save_pretrained(folder)
    return pretrained


def test_towers_compute_what_pretrained_ones_do(model: AMPere, tmp_path: Path) -> None:
    """Compare frame features with those that transformers' X-CLIP passes to its integration.

    With as many integration layers as X-CLIP has, compare the video feature too.
    """
    xclip = save_xclip(tmp_path / "xclip")
    save_bert(tmp_path / "bert")
    load_pretrained_towers(model, str(tmp_path / "xclip"), str(tmp_path / "bert"))
    assert model.video is not None and model.text is not None

    frames, features = random_frames(2, 4), []
    xclip.mit.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    xclip.get_video_features(normalize_pixels(frames.flatten(0, 1)).unflatten(0, (2, 4)))
    torch.testing.assert_close(model.video(frames)[1], features[0])
    shallow = VideoBranch(dataclasses.replace(model.config.sizes, temporal_layers=1)).eval()
    _load_xclip(shallow, str(tmp_path / "xclip"))
    torch.testing.assert_close(shallow(frames)[0], xclip.mit(features[0]).pooler_output)

    ids, mask = random_tokens(2, 7)
    mask[1, 5:] = 0
    bert = BertModel.from_pretrained(tmp_path / "bert", add_pooling_layer=False).eval()
    torch.testing.assert_close(model.text(ids, mask)[0], bert(ids, mask)[0])


def test_weights_equal_the_files(model: AMPere, tmp_path: Path) -> None:
    """Every stored tensor is in the model, bit for bit."""
    xclip, bert = save_xclip(tmp_path / "xclip"), save_bert(tmp_path / "bert")
    load_pretrained_towers(model, str(tmp_path / "xclip"), str(tmp_path / "bert"))
    assert model.video is not None and model.text is not None
    for name, weight in model.video.tower.state_dict().items():
        assert torch.equal(weight, xclip.vision_model.state_dict()[name]), name
    for name, weight in model.text.state_dict().items():
        assert torch.equal(weight, bert.bert.state_dict()[name]), name


@pytest.fixture(scope="module")
def towers(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[PreTrainedTokenizerBase, dict[str, str]]:
    """A tokenizer, and folders of an X-CLIP and of a BERT with its vocabulary."""
    folder, tokenizer = tmp_path_factory.mktemp("towers"), build_tokenizer(["云岚洗发水"])
    save_xclip(folder / "xclip")
    save_bert(folder / "bert", len(tokenizer))
    return tokenizer, {
        "vision_weights": str(folder / "xclip"),
        "text_weights": str(folder / "bert"),
    }


@pytest.mark.parametrize(
    "name", [name for name, system in SYSTEMS.items() if "network" not in system.model]
)
def test_systems_load_weights_of_their_towers_only(
    name: str, sizes: ModelSettings, towers: tuple[PreTrainedTokenizerBase, dict[str, str]]
) -> None:
    """A preset names weights for both towers, whatever the system leaves out."""
    tokenizer, weights = towers
    sizes = dataclasses.replace(sizes, **weights, **SYSTEMS[name].model)  # type: ignore[arg-type]
    use_text = named_settings(f"rope+{name}").train.text != "none"
    model = build_network(sizes, tokenizer, use_text=use_text)
    assert (model.video is not None) == sizes.use_vision and (model.text is not None) == use_text
    if use_text:
        bert = BertModel.from_pretrained(
            weights["text_weights"], add_pooling_layer=False
        ).state_dict()
        assert all(
            torch.equal(weight, bert[name]) for name, weight in model.text.state_dict().items()
        )


def test_empty_names_change_nothing(model: AMPere) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    load_pretrained_towers(model, "", "")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_misshapen_weights_are_named(model: AMPere, tmp_path: Path) -> None:
    save_xclip(tmp_path / "xclip", image_size=48)
    with pytest.raises(
        ValueError, match=r"position_embedding.weight is \[10, 24\], expected \[5, 24\]"
    ):
        load_pretrained_towers(model, str(tmp_path / "xclip"), "")
    save_bert(tmp_path / "bert", vocab_size=70)
    with pytest.raises(
        ValueError, match=r"word_embeddings.weight is \[70, 32\], expected \[60, 32\]"
    ):
        load_pretrained_towers(model, "", str(tmp_path / "bert"))


def test_missing_weights_are_named(model: AMPere, tmp_path: Path) -> None:
    """By default, transformers initializes them at random."""

    def drop(name: str, folder: Path) -> None:
        def change(weights: dict[str, Tensor]) -> None:
            del weights[name]

        change_weights(folder, change)

    save_xclip(tmp_path / "xclip")
    drop("visual_projection.weight", tmp_path / "xclip")
    with pytest.raises(ValueError, match="missing visual_projection.weight"):
        load_pretrained_towers(model, str(tmp_path / "xclip"), "")
    save_bert(tmp_path / "bert")
    drop("bert.encoder.layer.0.output.dense.bias", tmp_path / "bert")
    with pytest.raises(ValueError, match="missing encoder.layer.0.output.dense.bias"):
        load_pretrained_towers(model, "", str(tmp_path / "bert"))


def test_different_head_count_raises(model: AMPere, tmp_path: Path) -> None:
    save_xclip(tmp_path / "xclip", num_attention_heads=4)
    with pytest.raises(ValueError, match="num_attention_heads 4; the model was built with 3"):
        load_pretrained_towers(model, str(tmp_path / "xclip"), "")


def test_text_weights_without_text_raise(config: AMPereConfig) -> None:
    with pytest.raises(ValueError, match="reads no text"):
        load_pretrained_towers(AMPere(dataclasses.replace(config, use_text=False)), "", "hfl/rbt6")


def test_vision_weights_without_vision_raise(config: AMPereConfig) -> None:
    model = AMPere(
        dataclasses.replace(config, sizes=dataclasses.replace(config.sizes, use_vision=False))
    )
    with pytest.raises(
        ValueError, match=r"vision_weights is 'k600_16_8.pth', but the model reads no frames"
    ):
        load_pretrained_towers(model, "k600_16_8.pth", "")


def test_check_weights_finds_missing_frame_tower_weights(
    tmp_path: Path, sizes: ModelSettings
) -> None:
    save_xclip(tmp_path / "library")
    (tmp_path / "k600.pth").write_bytes(b"only its existence is checked")
    for name in ("library", "k600.pth"):
        check_weights(dataclasses.replace(sizes, vision_weights=str(tmp_path / name)))
    for name, words in (
        ("k400.pth", "file not found: .*k400.pth'; expected an original X-CLIP"),
        ("gone", "gone"),
    ):
        absent = dataclasses.replace(sizes, vision_weights=str(tmp_path / name))
        with pytest.raises(OSError, match=words):
            check_weights(absent)
        # Without a frame tower, the name is not read.
        check_weights(dataclasses.replace(absent, use_vision=False))
