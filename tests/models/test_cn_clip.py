import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import ChineseCLIPModel

from ampere.models.cn_clip import CLIP_MEAN, CLIP_STD, CNCLIP, CNCLIPConfig, Combine, load_cn_clip
from ampere.models.embedder import embed_pixels
from ampere.models.tokenizer import build_tokenizer, load_tokenizer
from ampere.models.towers.base import normalize_pixels
from ampere.records import Domain
from tests.helpers.models import (
    change_weights,
    outputs_of,
    random_frames,
    random_tokens,
    tiny_clip_config,
)

COMBINES: list[Combine] = ["visual", "mean", "concat"]


def build(combine: Combine) -> CNCLIP:
    """Equal weights for every `combine`, large enough that rows differ and attention matters."""
    torch.manual_seed(0)
    model = CNCLIP(
        CNCLIPConfig(clip=tiny_clip_config().to_diff_dict(), num_frames=4, combine=combine)
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


def library_video(model: CNCLIP, clip: Tensor) -> Tensor:
    """Unit feature [C] of one clip [F, 3, H, W], from transformers' own call for each frame."""
    frames = [
        model.clip.get_image_features(
            normalize_pixels(frame[None], CLIP_MEAN, CLIP_STD)
        ).pooler_output[0]
        for frame in clip
    ]
    return normalize(torch.stack([frame / frame.norm() for frame in frames]).mean(dim=0), dim=0)


def library_text(model: CNCLIP, ids: Tensor) -> Tensor:
    """Unit feature [C] of one text [L] without padding."""
    return normalize(model.clip.get_text_features(ids[None]).pooler_output[0], dim=0)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_each_combine_equals_transformers_features() -> None:
    frames, (ids, mask) = random_frames(3, 4), random_tokens(3, 7)
    video = torch.stack([library_video(build("visual"), clip) for clip in frames])
    text = torch.stack([library_text(build("visual"), row) for row in ids])
    assert (video[0] - video[1]).abs().max() > 1e-2 and (text[0] - text[1]).abs().max() > 1e-2
    assert_close(build("visual")(frames), video)
    assert_close(build("mean")(frames, ids, mask), normalize((video + text) / 2, dim=-1))
    assert_close(build("concat")(frames, ids, mask), torch.cat([video, text], dim=-1) / 2**0.5)


@pytest.mark.parametrize("combine", COMBINES)
def test_shapes_and_attributes(combine: Combine) -> None:
    model = build(combine)
    vectors = model(random_frames(2, 4), *random_tokens(2, 7), torch.tensor([0, 2]))
    assert vectors.shape == (2, model.embedding_dim) == (2, 24 if combine == "concat" else 12)
    assert vectors.dtype == torch.float32
    assert_close(vectors.norm(dim=-1), torch.ones(2))
    assert (model.num_frames, model.image_size, model.reads_text) == (4, 32, combine != "visual")


@pytest.mark.parametrize("combine", COMBINES)
def test_one_frame_equals_equal_frames(combine: Combine) -> None:
    model, page, tokens = build(combine), random_frames(3, 1), random_tokens(3, 7)
    assert_close(model(page, *tokens), model(page.expand(-1, 4, -1, -1, -1), *tokens))


def test_rice_is_the_mean_of_two_similarities_by_hand() -> None:
    """Cosines: frames 0.6, texts 0.28; their mean is 0.44."""
    model = build("concat")
    images, texts = (
        torch.tensor([[2.0, 0.0], [3.0, 4.0]]),
        torch.tensor([[0.0, 1.0], [24.0, 7.0]]),
    )
    model.clip.visual_projection.register_forward_hook(lambda *_: images)
    model.clip.text_projection.register_forward_hook(lambda *_: texts)
    live, page = model(random_frames(2, 1), *random_tokens(2, 7))
    assert (live @ page).item() == pytest.approx((0.6 + 0.28) / 2)
    assert (live @ live).item() == pytest.approx(1)
    # A live without text: the mean of 0.6 and 0, so pages are ranked by frames alone.
    ids, mask = random_tokens(2, 7)
    live, page = model(random_frames(2, 1), ids, mask * torch.tensor([[0], [1]]))
    assert (live @ page).item() == pytest.approx(0.6 / 2)
    assert live.tolist()[2:] == [0, 0]


def test_rows_without_text_use_video_alone() -> None:
    frames, (ids, mask) = random_frames(3, 4), random_tokens(3, 7)
    shown = mask * torch.tensor([[1], [0], [1]])
    video = build("visual")(frames)
    vectors = build("mean")(frames, ids, shown)
    assert_close(vectors[1], video[1])
    assert_close(vectors[::2], build("mean")(frames, ids, mask)[::2])
    assert_close(
        build("concat")(frames, ids, shown)[1], torch.cat([video[1], torch.zeros(12)]) / 2**0.5
    )


def test_text_attention_mask_is_never_empty() -> None:
    """Some attention kernels return NaN for an empty mask, and so would the batch's gradients."""
    model, (ids, mask) = build("mean"), random_tokens(2, 7)
    calls: list[dict[str, Tensor]] = []
    model.clip.text_model.register_forward_pre_hook(
        lambda _, __, inputs: calls.append(inputs), with_kwargs=True
    )
    model(random_frames(2, 1), ids, mask * torch.tensor([[1], [0]]))[:, 0].sum().backward()
    assert calls[0]["attention_mask"].any(dim=1).all()
    assert all(
        weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None
    )


def test_padding_is_not_read() -> None:
    model, frames, (ids, mask) = build("mean"), random_frames(2, 1), random_tokens(2, 5)
    longer = torch.cat([ids, torch.tensor([[7, 8], [9, 8]])], dim=1)
    plain, zeros = model(frames, ids, mask), torch.zeros(2, 2, dtype=mask.dtype)
    assert_close(model(frames, longer, torch.cat([mask, zeros], dim=1)), plain)
    assert (model(frames, longer, torch.ones_like(longer)) - plain).abs().max() > 1e-4


def test_order_of_frames_does_not_matter_but_every_frame_does() -> None:
    model, frames = build("visual"), random_frames(1, 4)
    assert_close(model(frames.flip(1)), model(frames))
    for i in range(4):
        other = frames.clone()
        other[:, i] = 255 - other[:, i]
        assert (model(other) - model(frames)).abs().max() > 1e-4


def test_visual_ignores_text() -> None:
    model, frames = build("visual"), random_frames(2, 4)
    assert torch.equal(model(frames), model(frames, *random_tokens(2, 7)))


@pytest.mark.parametrize("combine", COMBINES)
def test_every_trainable_parameter_gets_a_gradient(combine: Combine) -> None:
    model = build(combine).train()
    model(random_frames(2, 4), *random_tokens(2, 7))[:, ::5].sum().backward()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {name for name, weight in model.named_parameters() if weight.grad is not None}
    towers = {name.split(".")[1] for name in trained}
    vision, text = {"vision_model", "visual_projection"}, {"text_model", "text_projection"}
    assert towers == (vision if combine == "visual" else vision | text)
    for tower in towers:
        assert any(
            w.grad.abs().max() > 0
            for n, w in model.named_parameters()
            if tower in n and w.grad is not None
        )


@pytest.mark.parametrize("combine", COMBINES)
def test_parameter_groups_contain_the_trainable_parameters(combine: Combine) -> None:
    model = build(combine)
    groups = model.parameter_groups()
    names = {id(weight): name for name, weight in model.named_parameters()}
    held = {
        key: {names[id(weight)].split(".")[1] for weight in group} for key, group in groups.items()
    }
    text = {"text_model", "text_projection"} if model.reads_text else set()
    assert held == {
        "text": text,
        "video": {"vision_model", "visual_projection"},
        "fusion": set(),
        "rest": set(),
    }
    ids = [id(weight) for group in groups.values() for weight in group]
    assert sorted(ids) == sorted(
        id(weight) for weight in model.parameters() if weight.requires_grad
    )


def test_gradient_checkpointing_changes_no_gradient() -> None:
    grads = []
    for checkpointing in (False, True):
        model = build("mean").train()  # checkpointing needs training mode
        for part in model.modules():  # dropout would differ between the models
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        if checkpointing:
            model.enable_gradient_checkpointing()
            assert model.clip.vision_model.encoder.layers[0].gradient_checkpointing
        model(random_frames(2, 4), *random_tokens(2, 7))[:, 0].sum().backward()
        grads.append(
            torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])
        )
    assert_close(grads[0], grads[1])


@pytest.mark.parametrize("combine", COMBINES)
def test_bfloat16_autocast_gives_close_float32_vectors(combine: Combine) -> None:
    model, inputs = build(combine), (random_frames(2, 4), *random_tokens(2, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = model(*inputs)
    assert vectors.dtype == torch.float32
    assert_close(vectors.norm(dim=-1), torch.ones(2))
    assert ((vectors * model(*inputs)).sum(dim=-1) > 0.99).all()


def test_projections_are_float32_under_autocast() -> None:
    model = build("mean")
    outputs = outputs_of(model.clip.visual_projection, model.clip.text_projection)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(random_frames(2, 4), *random_tokens(2, 7))
    assert [output.dtype for output in outputs] == [torch.float32, torch.float32]


@pytest.mark.parametrize("combine", COMBINES)
def test_saved_model_loads_unchanged(combine: Combine, tmp_path: Path) -> None:
    tokenizer, model = build_tokenizer(["云杉牌电动牙刷"]), build(combine)
    model.train().save_pretrained(tmp_path / "new" / "folder", tokenizer)
    loaded = CNCLIP.from_pretrained(tmp_path / "new" / "folder")
    inputs = random_frames(2, 4), *random_tokens(2, 7)
    assert not loaded.training and loaded.config == model.config
    assert torch.equal(loaded(*inputs), model.eval()(*inputs))
    assert load_tokenizer(tmp_path / "new" / "folder").get_vocab() == tokenizer.get_vocab()
    assert {path.suffix for path in (tmp_path / "new" / "folder").iterdir()} == {
        ".json",
        ".safetensors",
    }


def test_missing_weight_of_a_saved_model_is_named(tmp_path: Path) -> None:
    build("mean").save_pretrained(tmp_path)
    change_weights(tmp_path, lambda weights: weights.pop("clip.text_projection.weight"))
    with pytest.raises(ValueError, match="missing clip.text_projection.weight"):
        CNCLIP.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"depth": 3}, {"combine": None}])
def test_config_of_another_class_raises(change: dict[str, object], tmp_path: Path) -> None:
    build("mean").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=r"is not the config of a CN-CLIP model|combine is None"):
        CNCLIP.from_pretrained(tmp_path)


def test_published_weights_are_loaded_in_float32(tmp_path: Path) -> None:
    model = build("mean")
    model.clip.save_pretrained(tmp_path / "float")
    loaded = load_cn_clip(str(tmp_path / "float"), num_frames=4, combine="mean")
    inputs = random_frames(2, 4), *random_tokens(2, 7)
    assert not loaded.training and torch.equal(loaded(*inputs), model(*inputs))
    ChineseCLIPModel(tiny_clip_config()).half().save_pretrained(tmp_path / "half")
    half = load_cn_clip(str(tmp_path / "half"), num_frames=8, combine="visual")
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    half.save_pretrained(tmp_path / "ours")
    assert {weight.dtype for weight in CNCLIP.from_pretrained(tmp_path / "ours").parameters()} == {
        torch.float32
    }


def test_missing_published_weight_is_named(tmp_path: Path) -> None:
    """By default, transformers initializes it at random."""
    build("mean").clip.save_pretrained(tmp_path)
    change_weights(tmp_path, lambda weights: weights.pop("visual_projection.weight"))
    with pytest.raises(ValueError, match="missing visual_projection.weight"):
        load_cn_clip(str(tmp_path), num_frames=4, combine="visual")


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (torch.zeros(1, 4, 3, 32, 32), "torch.uint8"),
        (torch.zeros(1, 4, 3, 32, 16, dtype=torch.uint8), r"\[B, F, 3, 32, 32\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"\[B, F, 3, 32, 32\]"),
        (
            torch.zeros(1, 3, 3, 32, 32, dtype=torch.uint8),
            r"3 frames; expected 1 \(an image\) or 4",
        ),
    ],
)
def test_invalid_frames_raise(frames: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build("mean")(frames, *random_tokens(1, 5))


def test_missing_or_misshapen_text_raises() -> None:
    model, (ids, mask) = build("mean"), random_tokens(2, 5)
    with pytest.raises(ValueError, match="reads text"):
        model(random_frames(2, 1))
    with pytest.raises(ValueError, match="one shape"):
        model(random_frames(2, 1), ids, mask[:, :4])
    with pytest.raises(ValueError, match="21 tokens; expected at most 20"):
        model(random_frames(2, 1), *random_tokens(2, 21))


def test_invalid_config_raises() -> None:
    config = build("mean").config
    with pytest.raises(ValueError, match="num_frames is 0"):
        dataclasses.replace(config, num_frames=0)
    with pytest.raises(ValueError, match="combine is 'sum'; give one of visual, mean, concat"):
        dataclasses.replace(config, combine="sum")


@pytest.mark.parametrize(
    ("combine", "words"),
    [("mean", "embeds texts together with frames only"), ("visual", "reads no text")],
)
def test_words_alone_are_refused(combine: Combine, words: str) -> None:
    """They would be mixed with a black picture."""
    tokenizer = build_tokenizer(["a"])
    with pytest.raises(ValueError, match=f"this model {words}, .* give a picture"):
        embed_pixels(build(combine), tokenizer, [None], ["a"], [Domain.PAGE])
