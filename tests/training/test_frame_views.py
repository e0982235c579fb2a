"""Training on frames without products, and starting from its model."""

import dataclasses

import pytest
import torch

from ampere.models.checkpoint import copy_fitting_weights
from ampere.records import Domain
from ampere.training.frame_views import FrameViews, frame_training_set
from ampere.training.loop import Training, TrainJob, build_model
from tests.helpers.training import SIZES, MemoryFrames, small_job, small_set, solid_frames


def samples(count: int) -> tuple[MemoryFrames, list[tuple[str, int]]]:
    """Images and clips of one color each, in turn."""
    numbers = [1 if at % 2 else SIZES.num_frames for at in range(count)]
    frames = {f"s#{at}": solid_frames(at, number) for at, number in enumerate(numbers)}
    return MemoryFrames(frames), list(zip(frames, numbers, strict=True))


def job_of(training_set: object, **train: object) -> TrainJob:
    small, _ = small_set(4)
    return dataclasses.replace(small_job(small, text="none", **train), training_set=training_set)


def test_sample_becomes_a_product_with_its_frames_as_pages() -> None:
    frames, counts = samples(2)
    training_set = frame_training_set(counts)
    assert training_set.products["s#0"] == {
        Domain.PAGE: ["s#0#0", "s#0#1"],
        Domain.SHORT: ["s#0#clip"],
    }
    assert training_set.products["s#1"] == {Domain.PAGE: ["s#1#0"], Domain.SHORT: ["s#1#clip"]}
    assert set(training_set.texts.values()) == {None}
    views = FrameViews(frames, SIZES.num_frames)
    first, second = frames.frames["s#0"], frames.frames["s#1"]
    assert views.take(["s#0#1", "s#1#clip", "s#0#clip"]) == [[first[1]], second * 2, first]


def test_clip_stored_as_one_image_repeats_it_in_every_frame() -> None:
    """Its domain is a clip's, and only the stored frames show that it has one frame."""
    frames, _ = samples(2)
    training_set = frame_training_set([("s#1", SIZES.num_frames)])
    views = FrameViews(frames, SIZES.num_frames)
    assert (
        views.take(training_set.products["s#1"][Domain.PAGE])
        == [frames.frames["s#1"]] * SIZES.num_frames
    )


def test_training_on_frames_lowers_the_loss() -> None:
    frames, counts = samples(8)
    training = Training(
        job_of(frame_training_set(counts), epochs=40), FrameViews(frames, SIZES.num_frames)
    )
    training.run(on_metrics=lambda metrics: None)
    losses = [metrics["contrastive"] for metrics in training.history]
    assert losses[-1] < 0.7 * losses[0]  # label smoothing keeps it above 0.6


def test_training_starts_from_the_weights_of_matching_shape(tmp_path: object) -> None:
    """From a model without text: the video branch is copied, the fusion is newly initialized."""
    training_set, _ = small_set(4)
    images_only = build_model(small_job(training_set, text="none"))
    images_only.save_pretrained(tmp_path)
    job = small_job(training_set, seed=3)
    torch.manual_seed(3)
    from_scratch = build_model(job).state_dict()
    torch.manual_seed(3)
    started = build_model(dataclasses.replace(job, start=tmp_path)).state_dict()
    theirs = images_only.state_dict()
    same = {name for name in started if name in theirs and torch.equal(started[name], theirs[name])}
    assert {name for name in started if name.startswith("video.")} <= same
    assert all(torch.equal(started[name], from_scratch[name]) for name in started.keys() - same)
    assert any(name.startswith("fusion.") for name in started.keys() - same)


def test_start_without_any_matching_weight_raises() -> None:
    with pytest.raises(ValueError, match="no weight of there fits the model"):
        copy_fitting_weights(
            torch.nn.Linear(2, 2),
            {"weight": torch.zeros(3, 2), "other": torch.zeros(2)},
            source="there",
        )
