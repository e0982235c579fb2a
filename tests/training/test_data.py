import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.media.images import model_input
from ampere.records import Domain
from ampere.training.data import Batch, TrainingSet
from tests.helpers.training import MIXED, SIZES, MemoryFrames, Sampler, small_set, solid_frames


def equal(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.labels, other.labels)
        and one.texts == other.texts
        and all(torch.equal(one.has_frames[d], other.has_frames[d]) for d in Domain)
        and all(torch.equal(one.frames[domain], other.frames[domain]) for domain in Domain)
    )


def products_with(batch: Batch, domain: Domain) -> list[int]:
    """The products of a batch that have the domain, in the order of its frames."""
    return batch.labels[batch.present[domain]].tolist()


def test_batch_has_the_shapes_of_its_products() -> None:
    training_set, frames = small_set(6, MIXED)
    (batch,) = Sampler(training_set, 6).epoch(1, frames)
    assert sorted(batch.labels.tolist()) == [0, 1, 2, 3, 4, 5]
    for domain, count in ((Domain.PAGE, 5), (Domain.SHORT, 5), (Domain.LIVE, 5)):
        has = [domain in training_set.products[f"p{label:02}"] for label in batch.labels.tolist()]
        assert batch.present[domain].tolist() == has
        assert sum(has) == count
        clip_frames = 1 if domain is Domain.PAGE else SIZES.num_frames
        assert batch.frames[domain].shape == (count, clip_frames, 3, 32, 32)
        assert batch.frames[domain].dtype == torch.uint8
        assert len(batch.texts[domain]) == count


def test_rows_have_frames_and_texts_of_their_own_product() -> None:
    training_set, frames = small_set(6, MIXED)
    (batch,) = Sampler(training_set, 6).epoch(1, frames)
    by_sample = {label: MemoryFrames({"x": solid_frames(label, 1)}) for label in range(6)}
    for domain in Domain:
        rows = [
            label
            for label, has in zip(
                batch.labels.tolist(), batch.present[domain].tolist(), strict=True
            )
            if has
        ]
        for at, label in enumerate(rows):
            (jpeg,) = by_sample[label].take(["x"])[0]
            expected = (
                torch.from_numpy(model_input([jpeg], SIZES.image_size)).float().mean(dim=(0, 2, 3))
            )
            assert torch.allclose(
                batch.frames[domain][at].float().mean(dim=(0, 2, 3)), expected, atol=3
            )
            assert batch.texts[domain][at] in (None, f"product {label}")


def test_each_epoch_draws_one_sample_per_product_and_domain() -> None:
    training_set, frames = small_set(4)
    for epoch in range(12):
        list(Sampler(training_set).epoch(epoch, frames))
    assert len(frames.taken) == 12 * 4 * 3
    assert set(frames.taken) == set(frames.frames)  # both samples are drawn in twelve epochs


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(2, 12), st.integers(0, 3))
def test_epoch_visits_each_product_at_most_once(products: int, batch_size: int, epoch: int) -> None:
    training_set, frames = small_set(products)
    one = Sampler(training_set, batch_size)
    batches = list(one.epoch(epoch, frames))
    labels = [label for batch in batches for label in batch.labels.tolist()]
    assert len(labels) == len(set(labels))
    assert (
        len(batches) == one.batches(frames).steps_per_epoch == products // min(products, batch_size)
    )
    assert {len(batch.labels) for batch in batches} == {min(products, batch_size)}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(4, 9), st.integers(2, 4))
def test_ranks_split_the_whole_batch(ranks: int, products: int, per_rank: int) -> None:
    training_set, frames = small_set(products)
    samplers = [Sampler(training_set, per_rank * ranks, rank, ranks) for rank in range(ranks)]
    assert len({one.batches(frames).steps_per_epoch for one in samplers}) == 1
    whole = Sampler(training_set, samplers[0].batches(frames).batch_size)
    parts = zip(*(one.epoch(3, frames) for one in samplers), strict=True)
    for step, whole_batch in zip(parts, whole.epoch(3, frames), strict=True):
        assert len({len(batch.labels) for batch in step}) == 1  # all_gather needs equal sizes
        labels = [label for batch in step for label in batch.labels.tolist()]
        assert len(labels) == len(set(labels))
        assert sorted(labels) == sorted(whole_batch.labels.tolist())
        for batch in step:  # a product's row does not depend on the rank
            for domain in Domain:
                of_label = dict(
                    zip(products_with(whole_batch, domain), whole_batch.frames[domain], strict=True)
                )
                for label, pixels in zip(
                    products_with(batch, domain), batch.frames[domain], strict=True
                ):
                    assert torch.equal(pixels, of_label[label])


def test_same_seed_and_epoch_give_same_batches() -> None:
    training_set, frames = small_set(6)
    first = list(Sampler(training_set, 3).epoch(1, frames))
    assert all(map(equal, first, Sampler(training_set, 3).epoch(1, frames)))
    assert not all(map(equal, first, Sampler(training_set, 3).epoch(2, frames)))
    assert not all(map(equal, first, Sampler(training_set, 3, seed=1).epoch(1, frames)))


def test_labels_are_in_the_order_of_product_names() -> None:
    training_set, _ = small_set(5)
    shuffled = dict(random.Random(1).sample(sorted(training_set.products.items()), 5))
    batches = Sampler(TrainingSet(products=shuffled, texts={})).batches(MemoryFrames({}))
    assert batches.names == [f"p{i:02}" for i in range(5)]


def test_clip_of_one_image_is_repeated_in_every_frame() -> None:
    training_set, frames = small_set(2)
    frames.frames = {name: solid_frames(1, 1) for name in frames.frames}
    (batch,) = Sampler(training_set, 2).epoch(0, frames)
    clips = batch.frames[Domain.SHORT]
    assert clips.shape[1] == SIZES.num_frames
    assert torch.equal(clips[:, 0], clips[:, 1])


def test_clip_may_have_frames_of_different_sizes() -> None:
    training_set, frames = small_set(2)
    clip = solid_frames(1, 1, (60, 40)) + solid_frames(1, 1, (40, 60))
    frames.frames = {
        name: jpegs if len(jpegs) == 1 else clip for name, jpegs in frames.frames.items()
    }
    (batch,) = Sampler(training_set, 2).epoch(0, frames)
    assert batch.frames[Domain.LIVE].shape == (2, 2, 3, 32, 32)


def test_sample_without_frames_raises() -> None:
    training_set, _ = small_set(2)
    with pytest.raises(KeyError):
        next(Sampler(training_set, 2).epoch(0, MemoryFrames({})))


def test_batch_does_not_depend_on_earlier_steps() -> None:
    training_set, frames = small_set(6, MIXED)
    batches = Sampler(training_set, 2).batches(frames)
    in_order = [batches[step] for step in range(9)]
    fresh = Sampler(training_set, 2).batches(frames)
    assert all(equal(fresh[step], in_order[step]) for step in (8, 3, 0))


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_yields_the_steps_in_order_and_raises_errors(workers: int) -> None:
    training_set, frames = small_set(6, MIXED)
    batches = Sampler(training_set, 2).batches(frames)
    expected = [batches[step] for step in (2, 3, 4)]
    read = set(frames.taken)
    batches[5]
    only_in_step_5 = set(frames.taken) - read
    assert only_in_step_5
    for name in only_in_step_5:
        del frames.frames[name]
    loader = batches.loader(range(2, 6), workers)
    assert all(equal(next(loader), batch) for batch in expected)
    with pytest.raises(KeyError):
        next(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_of_no_steps_is_empty(workers: int) -> None:
    """As for a training that resumes after its last step."""
    training_set, frames = small_set(6, MIXED)
    assert list(Sampler(training_set, 2).batches(frames).loader(range(3, 3), workers)) == []


def test_text_dropout_removes_its_share_of_the_texts() -> None:
    training_set, frames = small_set(40)
    training_set = TrainingSet(
        products=training_set.products, texts=dict.fromkeys(training_set.texts, "x")
    )

    def missing_share(share: float) -> float:
        (batch,) = Sampler(training_set, 40, text_dropout=share).epoch(0, frames)
        texts = [text for texts in batch.texts.values() for text in texts]
        return sum(text is None for text in texts) / len(texts)

    assert missing_share(0.0) == 0
    assert 0.15 < missing_share(0.3) < 0.45  # of 120


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9))
def test_split_batch_has_the_rows_of_the_whole(size: int) -> None:
    training_set, frames = small_set(7, MIXED)
    (batch,) = Sampler(training_set, 7).epoch(0, frames)
    parts = batch.split(size)
    assert [len(part.labels) for part in parts[:-1]] == [size] * (len(parts) - 1)
    for domain in Domain:
        assert torch.equal(torch.cat([part.frames[domain] for part in parts]), batch.frames[domain])
        assert torch.equal(
            torch.cat([part.present[domain] for part in parts]), batch.present[domain]
        )
        assert [text for part in parts for text in part.texts[domain]] == batch.texts[domain]
        for part in parts:
            assert (
                len(part.frames[domain])
                == len(part.texts[domain])
                == int(part.present[domain].sum())
            )


def test_frame_dropout_blackens_its_share_of_the_samples_with_text() -> None:
    training_set, frames = small_set(40)
    dropped = kept = 0
    for dropout in (0.0, 0.3):
        sampler = Sampler(training_set, 40, frame_dropout=dropout)
        for epoch in range(3):
            (batch,) = sampler.epoch(epoch, frames)
            for domain in Domain:
                for pixels, text, has_frames in zip(
                    batch.frames[domain], batch.texts[domain], batch.has_frames[domain], strict=True
                ):
                    assert has_frames or (text and dropout)  # never both modalities
                    assert has_frames == bool(pixels.any())
                    if dropout and text:
                        dropped, kept = dropped + (not has_frames), kept + bool(has_frames)
    assert 0.15 < dropped / (dropped + kept) < 0.45


def test_frame_dropout_changes_no_other_draw() -> None:
    training_set, frames = small_set(8)
    (plain,) = Sampler(training_set, 8, text_dropout=0.5).epoch(0, frames)
    (dropping,) = Sampler(training_set, 8, text_dropout=0.5, frame_dropout=0.5).epoch(0, frames)
    assert plain.texts == dropping.texts
    for domain in Domain:
        has_frames = dropping.has_frames[domain]
        assert torch.equal(plain.frames[domain][has_frames], dropping.frames[domain][has_frames])
    assert not torch.cat(list(dropping.has_frames.values())).all()
