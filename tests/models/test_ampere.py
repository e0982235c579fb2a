import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ampere.config.model import ModelSettings
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.cn_clip import CLIP_MEAN, CLIP_STD
from ampere.models.towers.base import normalize_pixels
from tests.helpers.models import outputs_of, random_frames, random_tokens


def visual_only(config: AMPereConfig) -> AMPere:
    torch.manual_seed(0)
    return AMPere(dataclasses.replace(config, use_text=False)).eval()


def test_embeddings_are_unit_vectors(model: AMPere, config: AMPereConfig) -> None:
    for network, num_frames in ((model, 4), (model, 1), (visual_only(config), 4)):
        vectors = network(random_frames(3, num_frames), *random_tokens(3, 7))
        assert vectors.shape == (3, 12) and vectors.dtype == torch.float32
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
        assert (vectors[0] - vectors[1]).abs().max() > 1e-4


def test_one_frame_equals_equal_frames(model: AMPere) -> None:
    """Also in gradients, and with as many pages in the batch as a clip has frames."""
    image, (ids, mask) = random_frames(4, 1), random_tokens(4, 7)
    vectors, grads = vectors_and_grads(model, image, ids, mask)
    same_vectors, same_grads = vectors_and_grads(model, image.expand(-1, 4, -1, -1, -1), ids, mask)
    torch.testing.assert_close(vectors, same_vectors, rtol=0, atol=1e-5)
    # If all messages are equal, the message attention's queries and keys get no gradient but
    # rounding errors.
    for name, grad in grads.items():
        torch.testing.assert_close(grad, same_grads[name], rtol=1e-3, atol=1e-5, msg=name)


def vectors_and_grads(
    model: AMPere, frames: Tensor, ids: Tensor, mask: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    vectors = model(frames, ids, mask)
    vectors[:, 0].sum().backward()
    grads = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    return vectors.detach(), grads


def test_single_frames_do_not_change_the_tower(model: AMPere) -> None:
    clips, tokens = random_frames(2, 4), random_tokens(2, 7)
    before = model(clips, *tokens)
    model(random_frames(3, 1), *random_tokens(3, 7))
    torch.testing.assert_close(model(clips, *tokens), before)


def test_rows_are_independent(model: AMPere) -> None:
    for num_frames in (1, 4):
        frames, (ids, mask) = random_frames(4, num_frames), random_tokens(4, 7)
        alone = model(frames[1:2], ids[1:2], mask[1:2])
        torch.testing.assert_close(model(frames, ids, mask)[1:2], alone, rtol=0, atol=1e-6)


def test_order_of_frames_matters(model: AMPere) -> None:
    frames, tokens = random_frames(1, 4), random_tokens(1, 7)
    assert (model(frames, *tokens) - model(frames.flip(1), *tokens)).abs().max() > 1e-5


def test_padding_is_not_read(model: AMPere) -> None:
    frames, (ids, mask) = random_frames(2, 1), random_tokens(2, 5)
    longer = torch.cat([ids, torch.tensor([[7, 8, 9], [9, 8, 7]])], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(2, 3, dtype=mask.dtype)], dim=1)
    plain = model(frames, ids, mask)
    torch.testing.assert_close(model(frames, longer, padded_mask), plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(model(frames, longer, padded_mask.bool()), plain, rtol=0, atol=1e-6)
    assert (model(frames, longer, torch.ones_like(longer)) - plain).abs().max() > 1e-4


def test_towers_use_sdpa(model: AMPere) -> None:
    assert model.text is not None
    towers = (model.video.tower, model.text)
    assert [tower.config._attn_implementation for tower in towers] == ["sdpa", "sdpa"]


def test_visual_only_ignores_text(config: AMPereConfig) -> None:
    network, frames = visual_only(config), random_frames(2, 4)
    assert torch.equal(network(frames), network(frames, *random_tokens(2, 7)))


def test_pixels_are_normalized_as_x_clip_and_clip_do() -> None:
    white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    # (1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225
    expected = torch.tensor([2.2489, 2.4286, 2.6400])
    torch.testing.assert_close(normalize_pixels(white).flatten(), expected, rtol=0, atol=1e-3)
    # (1 - 0.4815) / 0.2686, (1 - 0.4578) / 0.2613, (1 - 0.4082) / 0.2758
    expected = torch.tensor([1.9303, 2.0750, 2.1459])
    torch.testing.assert_close(
        normalize_pixels(white, CLIP_MEAN, CLIP_STD).flatten(), expected, rtol=0, atol=1e-3
    )


def test_every_parameter_gets_a_gradient(model: AMPere, config: AMPereConfig) -> None:
    """DDP hangs or raises on a parameter without a gradient."""
    for network in (model, visual_only(config)):
        network(random_frames(2, 4), *random_tokens(2, 7))[:, 0].sum().backward()
        assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_parameter_groups_are_complete_and_disjoint(model: AMPere, config: AMPereConfig) -> None:
    for network in (model, visual_only(config)):
        ids = [id(weight) for group in network.parameter_groups().values() for weight in group]
        assert len(ids) == len(set(ids))
        assert set(ids) == {id(weight) for weight in network.parameters()}
    assert visual_only(config).parameter_groups()["text"] == []


def test_parameter_groups_contain_their_parts(model: AMPere) -> None:
    group_of = {
        id(weight): name for name, group in model.parameter_groups().items() for weight in group
    }
    groups_by_prefix: dict[str, set[str]] = {}
    for name, weight in model.named_parameters():
        groups_by_prefix.setdefault(".".join(name.split(".")[:2]), set()).add(group_of[id(weight)])
    text = {prefix: {"text"} for prefix in ("text.embeddings", "text.encoder")}
    rest = ("fusion.visual_projection", "fusion.text_projection",
            "embed.weight", "embed.bias", "no_text")  # fmt: skip
    assert groups_by_prefix == text | {prefix: {"rest"} for prefix in rest} | {
        "video.tower": {"video"},
        "video.projection": {"video"},
        "video.integration": {"video"},
        "fusion.blocks": {"fusion"},
    }


def variant(config: AMPereConfig, **sizes: object) -> AMPere:
    torch.manual_seed(0)
    return AMPere(
        dataclasses.replace(config, sizes=dataclasses.replace(config.sizes, **sizes))
    ).eval()  # type: ignore[arg-type]


def test_missing_text_differs_from_empty_string_and_hides_row(
    config: AMPereConfig,
) -> None:
    frames, cls_sep = random_frames(1, 1), torch.tensor([[7, 8, 0, 0]])
    missing, empty = torch.zeros(1, 4), torch.tensor([[1, 1, 0, 0]])
    other = torch.tensor([[9, 5, 6, 5]])
    learned = variant(config)
    assert (learned(frames, cls_sep, missing) - learned(frames, cls_sep, empty)).abs().max() > 1e-3
    torch.testing.assert_close(learned(frames, other, missing), learned(frames, cls_sep, missing))
    assert learned.no_text is not None
    before = learned(frames, cls_sep, missing)
    torch.nn.init.ones_(learned.no_text)
    assert (learned(frames, cls_sep, missing) - before).abs().max() > 1e-3
    paper = variant(config, missing_text="empty")
    assert paper.no_text is None
    torch.testing.assert_close(paper(frames, cls_sep, missing), paper(frames, cls_sep, empty))


def test_rows_with_and_without_text_are_independent(config: AMPereConfig) -> None:
    for choice in ("learned", "empty"):
        model = variant(config, missing_text=choice)
        frames, (ids, mask) = random_frames(3, 1), random_tokens(3, 5)
        ids[1], mask[1] = torch.tensor([7, 8, 0, 0, 0]), 0
        together = model(frames, ids, mask)
        for row in range(3):
            one = slice(row, row + 1)
            torch.testing.assert_close(
                model(frames[one], ids[one], mask[one]), together[one], rtol=0, atol=1e-6
            )
        assert torch.isfinite(together).all()


def test_last_layer_per_domain(config: AMPereConfig) -> None:
    model = variant(config, share_last_layer=False)
    frames, tokens = random_frames(1, 1), random_tokens(1, 5)
    three = [
        frames.expand(3, -1, -1, -1, -1),
        *(part.expand(3, -1) for part in tokens),
        torch.tensor([0, 1, 2]),
    ]
    page, short, live = model(*three)
    assert (
        min((page - short).abs().max(), (page - live).abs().max(), (short - live).abs().max())
        > 1e-3
    )
    torch.testing.assert_close(model(frames, *tokens, torch.tensor([1]))[0], short)
    # The second domain's layer becomes a copy of the first's.
    model.embed.weight.data[12:24] = model.embed.weight.data[:12]
    model.embed.bias.data[12:24] = model.embed.bias.data[:12]
    page, short, _ = model(*three)
    torch.testing.assert_close(page, short)
    with pytest.raises(ValueError, match="last layer per domain, but domains is None"):
        model(frames, *tokens)


def test_text_only_ignores_frames(config: AMPereConfig) -> None:
    model, tokens = variant(config, use_vision=False), random_tokens(2, 5)
    assert model.video is None and model.fusion is None
    vectors = model(random_frames(2, 4), *tokens)
    assert torch.equal(vectors, model(random_frames(2, 1, seed=5), *tokens))
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))
    with pytest.raises(ValueError, match="needs at least one of them"):
        AMPere(dataclasses.replace(model.config, use_text=False))


VARIANTS: tuple[dict[str, object], ...] = (
    {"fusion": "cat"},
    {"fusion": "coa"},
    {"fusion": "authors"},
    {"share_last_layer": False},
    {"use_vision": False},
    {"missing_text": "empty"},
)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_variants_save_load_group_and_train(
    changes: dict[str, object], config: AMPereConfig, tmp_path: Path
) -> None:
    model = variant(config, **changes)
    inputs = (random_frames(3, 1), *random_tokens(3, 5), torch.tensor([0, 1, 2]))
    model.save_pretrained(tmp_path)
    assert torch.equal(AMPere.from_pretrained(tmp_path)(*inputs), model(*inputs))
    ids = [id(weight) for group in model.parameter_groups().values() for weight in group]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))
    model(*inputs)[:, 0].sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_gradient_checkpointing_changes_no_gradient(config: AMPereConfig) -> None:
    for frames in (random_frames(2, 4), random_frames(3, 1)):
        tokens = random_tokens(len(frames), 5)
        _, plain = vectors_and_grads(variant(config).train(False), frames, *tokens)
        checkpointed = variant(config)
        checkpointed.enable_gradient_checkpointing()
        checkpointed.train()
        for module in checkpointed.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        calls = calls_of_layers(checkpointed)
        _, grads = vectors_and_grads(checkpointed, frames, *tokens)
        assert calls == [2, 2]  # each forward pass is repeated in the backward pass
        for name, grad in plain.items():
            torch.testing.assert_close(grads[name], grad, msg=name)


def calls_of_layers(model: AMPere) -> list[int]:
    """How often the first layers of frame tower and text tower have run since this call."""
    assert model.video is not None and model.text is not None
    calls = [0, 0]
    # Hooks are on submodules, which the frame tower's copies for single frames share.
    for at, part in enumerate(
        (model.video.tower.encoder.layers[0].mlp, model.text.encoder.layer[0].intermediate)
    ):
        part.register_forward_pre_hook(lambda *_, at=at: calls.__setitem__(at, calls[at] + 1))
    return calls


def millions(*modules: nn.Module) -> float:
    return sum(weight.numel() for module in modules for weight in module.parameters()) / 1e6


def test_parameter_counts_of_the_paper() -> None:
    """Section III-D and Table IX: AMPere 206.8 M, COPE 134.4 M, fusion 12.8 M.

    The paper does not say what it counts as fusion. The four blocks alone have 12.61 M; with the
    visual projection 12.87 M, the only sum of parts within 0.1 M of its figure.
    """
    config = AMPereConfig(sizes=ModelSettings(), vocab_size=21128, pad_token_id=0)
    with torch.device("meta"):
        model = AMPere(config)
        sizes = dataclasses.replace(config.sizes, share_last_layer=False)
        cope = AMPere(dataclasses.replace(config, use_text=False, sizes=sizes))
    assert model.fusion is not None
    assert millions(model) == pytest.approx(206.8, abs=0.1)
    assert millions(cope) == pytest.approx(134.4, abs=0.1)
    assert millions(model.fusion.blocks) == pytest.approx(12.61, abs=0.01)
    assert millions(model.fusion.blocks, model.fusion.visual_projection) == pytest.approx(
        12.8, abs=0.1
    )


def test_last_layer_of_the_authors_head_is_two_projections(config: AMPereConfig) -> None:
    """Without bias, over the normalized video feature and the normalized CLS."""
    model = variant(config, fusion="authors")
    fused = outputs_of(model.fusion, model.embed)
    model(random_frames(2, 4), *random_tokens(2, 5))
    video, cls = fused[0].chunk(2, dim=1)
    of_video, of_cls = model.embed.weight.chunk(2, dim=1)
    torch.testing.assert_close(video @ of_video.T + cls @ of_cls.T, fused[1])
    torch.testing.assert_close(video.mean(dim=1), torch.zeros(2), rtol=0, atol=1e-6)


def test_parameter_counts_of_both_heads() -> None:
    """Equation 2 to the letter, and the authors' head, whose count is the paper's 206.8 M."""
    counts = {}
    for fusion in ("ours", "authors"):
        for missing_text in ("empty", "learned"):
            sizes = ModelSettings(fusion=fusion, missing_text=missing_text)
            with torch.device("meta"):
                model = AMPere(AMPereConfig(sizes=sizes, vocab_size=21128, pad_token_id=0))
            counts[fusion, missing_text] = round(1e6 * millions(model))
    assert counts == {
        ("ours", "empty"): 206_741_632,
        ("ours", "learned"): 206_742_400,
        ("authors", "empty"): 206_809_088,
        ("authors", "learned"): 206_809_856,
    }


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
def test_invalid_frames_raise(model: AMPere, frames: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        model(frames, *random_tokens(1, 5))


def test_missing_or_misshapen_text_raises(model: AMPere) -> None:
    ids, mask = random_tokens(2, 5)
    with pytest.raises(ValueError, match="reads text"):
        model(random_frames(2, 1))
    with pytest.raises(ValueError, match="one shape"):
        model(random_frames(2, 1), ids, mask[:, :4])
    with pytest.raises(ValueError, match="one shape"):
        model(random_frames(3, 1), ids, mask)


def test_heads_that_do_not_divide_the_width_raise(config: AMPereConfig) -> None:
    with pytest.raises(ValueError, match="heads must divide width"):
        AMPere(dataclasses.replace(config, sizes=dataclasses.replace(config.sizes, heads=3)))


def test_bfloat16_autocast_gives_close_float32_vectors(model: AMPere) -> None:
    tokens = random_tokens(2, 7)
    for num_frames in (1, 4):
        frames = random_frames(2, num_frames)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            vectors = model(frames, *tokens)
        assert vectors.dtype == torch.float32
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))
        assert ((vectors * model(frames, *tokens)).sum(dim=-1) > 0.999).all()


def test_last_layer_is_float32_under_autocast(model: AMPere) -> None:
    outputs = outputs_of(model.embed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(random_frames(2, 4), *random_tokens(2, 7))
    assert [output.dtype for output in outputs] == [torch.float32]


@pytest.mark.parametrize("missing_frames", ["learned", "black"])
def test_parts_alone_are_those_of_samples_without_the_other(
    config: AMPereConfig, missing_frames: str
) -> None:
    model = variant(config, missing_frames=missing_frames)
    frames, (ids, mask) = random_frames(3, 4), random_tokens(3, 7)
    whole, frames_alone, text_alone = model(frames, ids, mask, alone=True)
    torch.testing.assert_close(whole, model(frames, ids, mask), atol=1e-5, rtol=0)
    no_text = model(frames, ids, torch.zeros_like(mask))
    torch.testing.assert_close(frames_alone, no_text, atol=1e-5, rtol=0)
    hidden = torch.zeros(3, dtype=torch.bool)
    black = model(torch.zeros_like(frames), ids, mask, has_frames=hidden)
    torch.testing.assert_close(text_alone, black, atol=1e-5, rtol=0)
    assert (whole - frames_alone).abs().max() > 1e-3 and (whole - text_alone).abs().max() > 1e-3


def test_frames_alone_have_the_empty_string_where_it_stands_for_missing_text(
    config: AMPereConfig,
) -> None:
    model = variant(config, missing_text="empty", missing_frames="learned")
    frames, (ids, mask) = random_frames(2, 4), random_tokens(2, 7)
    pad = config.pad_token_id
    ids[1, 5:], mask[1, 5:] = pad, 0  # texts of 7 and of 5 tokens, CLS and SEP included
    _, frames_alone, text_alone = model(frames, ids, mask, alone=True)
    empty = torch.full_like(ids, pad)
    empty[:, 0], empty[0, 1], empty[1, 1] = ids[:, 0], ids[0, 6], ids[1, 4]
    no_text = model(frames, empty, torch.zeros_like(mask))
    torch.testing.assert_close(frames_alone, no_text, atol=1e-5, rtol=0)
    hidden = model(frames, ids, mask, has_frames=torch.zeros(2, dtype=torch.bool))
    torch.testing.assert_close(text_alone, hidden, atol=1e-5, rtol=0)
    assert (frames_alone - text_alone).abs().max() > 1e-3


def test_missing_frames_hide_their_row_alone(config: AMPereConfig) -> None:
    model = variant(config, missing_frames="learned")
    frames, tokens = random_frames(3, 4), random_tokens(3, 7)
    has_frames = torch.tensor([True, False, True])
    vectors = model(frames, *tokens, has_frames=has_frames)
    whole = model(frames, *tokens)
    torch.testing.assert_close(vectors[has_frames], whole[has_frames])
    assert (vectors[1] - whole[1]).abs().max() > 1e-3
    other = model(random_frames(3, 4), *tokens, has_frames=~torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(other[1], vectors[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("missing_frames", "black"), [("learned", []), ("black", [1])])
def test_tower_sees_no_sample_without_frames(
    config: AMPereConfig, missing_frames: str, black: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = variant(config, missing_frames=missing_frames)
    frames, tokens = random_frames(3, 4), random_tokens(3, 7)
    frames[1:] = 0
    has_frames = torch.tensor([True, False, False])
    assert model.video is not None
    seen: list[int] = []
    encode = model.video.tower.encode_frames
    monkeypatch.setattr(
        model.video.tower, "encode_frames", lambda given: seen.append(len(given)) or encode(given)
    )
    some = model(frames, *tokens, has_frames=has_frames)
    none = model(frames, *tokens, has_frames=torch.zeros(3, dtype=torch.bool))
    assert seen == [1, *black, *black]
    torch.testing.assert_close(none[1:], some[1:], atol=1e-5, rtol=0)
    # A compiled network and a training pass all rows through the tower, in equal shapes.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(
        model(frames, *tokens, has_frames=has_frames), some, atol=1e-5, rtol=0
    )
    assert 3 in seen


def test_learned_missing_frames_are_one_vector(config: AMPereConfig) -> None:
    learned, black = (variant(config, missing_frames=choice) for choice in ("learned", "black"))
    count = sum(p.numel() for p in learned.parameters())
    assert count - sum(p.numel() for p in black.parameters()) == config.sizes.width
    assert learned.embeds_alone and black.embeds_alone and not visual_only(config).embeds_alone
    text_only = variant(config, use_vision=False)
    assert text_only.embeds_words and not text_only.embeds_alone
    assert learned.embeds_words and not visual_only(config).embeds_words
    assert variant(config, missing_text="empty").embeds_alone
