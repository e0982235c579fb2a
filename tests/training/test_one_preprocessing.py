"""Training, batch embedding and serving read the same pixels and the same text."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from ampere.losses.partial_fc import PartialFC
from ampere.media.images import encode_jpeg, model_input
from ampere.models.embedder import Embedder
from ampere.models.model_folder import SETTINGS_FILE, embedding_name, frame_view, text_source
from ampere.pipeline.embed import read_pixels
from ampere.records import FRAMES, Domain
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from ampere.training import data
from ampere.training.data import ProductBatches, TrainingSet
from ampere.training.loop import TrainJob, build_model
from ampere.training.step import ProductModel, Step
from ampere.training.validation import validation_score
from tests.helpers.training import SIZES, MemoryFrames, small_job, small_set

DOMAINS = [Domain.SHORT, Domain.PAGE, Domain.LIVE, Domain.PAGE]


def noisy(seed: int, count: int) -> list[bytes]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return [encode_jpeg(Image.fromarray(frame).resize((48, 48)), 90) for frame in pixels]


class CenterRandom(random.Random):
    """Draws the whole image and no flip, so that augmentation changes nothing."""

    def uniform(self, a: float, b: float) -> float:
        return b if (a, b) == (1.0, 1.0) else (a + b) / 2

    def random(self) -> float:
        return 0.9

    def choice(self, seq: list[str]) -> str:  # type: ignore[override]
        return seq[0]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, TrainJob, TrainingSet, MemoryFrames]:
    """A model folder as written by training, its job, training set and frames."""
    training_set, frames = small_set(3)
    for seed, name in enumerate(frames.frames):
        frames.frames[name] = noisy(seed, len(frames.frames[name]))
    job = small_job(training_set)
    torch.manual_seed(0)
    build_model(job).save_pretrained(tmp_path / "ampere", job.tokenizer)
    (tmp_path / "ampere" / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "llm"}}))
    return tmp_path / "ampere", job, training_set, frames


def test_training_and_embedding_give_the_same_vector(
    saved: tuple[Path, TrainJob, TrainingSet, MemoryFrames], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, job, training_set, frames = saved
    monkeypatch.setattr(data.random, "Random", lambda seed: CenterRandom(0))
    settings = dataclasses.replace(job.train, batch_size=3, crop_scale=1.0, text_dropout=0.0)
    batch = ProductBatches(
        training_set, frames, settings, num_frames=SIZES.num_frames, image_size=SIZES.image_size
    )[0]
    embedder = Embedder(folder)
    step = Step(
        ProductModel(embedder.model), PartialFC(3, SIZES.embedding_dim), job.tokenizer, settings,
        device=torch.device("cpu"),
    )  # fmt: skip
    with torch.no_grad():
        trained = step.embed(step.network, batch, seed=0)
    for row, label in enumerate(batch.labels.tolist()):
        for column, (domain, ids) in enumerate(training_set.products[f"p{label:02}"].items()):
            stored = frames.take(ids[:1])
            vector = embedder.embed(stored, [training_set.texts[ids[0]]], [domain])
            np.testing.assert_allclose(
                vector[0], trained[row, column].numpy(), atol=1e-5, err_msg=domain
            )


def test_mixed_pages_and_clips_are_embedded_in_order(
    saved: tuple[Path, TrainJob, TrainingSet, MemoryFrames],
) -> None:
    embedder = Embedder(saved[0])
    stored = [noisy(1, 2), noisy(2, 1), noisy(3, 2), noisy(4, 1)]
    texts = ["product 1", None, "", "product 2"]
    together = embedder.embed(stored, texts, DOMAINS)
    alone = np.concatenate(
        [embedder.embed([f], [t], [d]) for f, t, d in zip(stored, texts, DOMAINS, strict=True)]
    )
    assert together.dtype == np.float32 and together.shape == (4, SIZES.embedding_dim)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.abs(together[0] - together[2]).max() > 1e-3


def test_one_frame_is_embedded_as_a_clip_of_equal_frames(
    saved: tuple[Path, TrainJob, TrainingSet, MemoryFrames],
) -> None:
    embedder = Embedder(saved[0])
    (frame,) = noisy(1, 1)
    page, clip = embedder.embed(
        [[frame], [frame] * SIZES.num_frames], ["product 1"] * 2, DOMAINS[:2]
    )
    np.testing.assert_allclose(page, clip, atol=1e-5)


def test_empty_text_is_a_missing_text(
    saved: tuple[Path, TrainJob, TrainingSet, MemoryFrames],
) -> None:
    texts = [None, "", " \u3000", "绿茶"]
    missing, *empty, text = Embedder(saved[0]).embed([noisy(1, 1)] * 4, texts, [Domain.PAGE] * 4)
    assert all(np.allclose(missing, vector, atol=1e-6) for vector in empty)
    assert np.abs(missing - text).max() > 1e-3


def test_last_layer_per_domain_depends_on_the_domain(tmp_path: Path) -> None:
    training_set, _ = small_set(3)
    job = small_job(training_set)
    model = build_model(
        dataclasses.replace(job, model=dataclasses.replace(SIZES, share_last_layer=False))
    )
    model.save_pretrained(tmp_path / "cope", job.tokenizer)
    (tmp_path / "cope" / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "llm"}}))
    vectors = Embedder(tmp_path / "cope").embed([noisy(1, 1)] * 3, ["x"] * 3, list(Domain))
    assert (
        np.abs(vectors[0] - vectors[1]).max() > 1e-3
        and np.abs(vectors[1] - vectors[2]).max() > 1e-3
    )


@pytest.mark.parametrize("count", [0, 3])
def test_wrong_number_of_frames_raises(
    saved: tuple[Path, TrainJob, TrainingSet, MemoryFrames], count: int
) -> None:
    with pytest.raises(
        ValueError, match=rf"has {count} frames; expected 1 .* or {SIZES.num_frames} "
    ):
        Embedder(saved[0]).embed([noisy(1, 1), noisy(1, count)], ["a", "b"], DOMAINS[:2])


def test_embedding_name_depends_on_the_weights(
    saved: tuple[Path, TrainJob, TrainingSet, MemoryFrames],
) -> None:
    folder, job, *_ = saved
    name = Embedder(folder).name
    assert name == embedding_name(folder) and name.startswith("ampere@")
    assert text_source(folder) == Embedder(folder).text_source == "llm"
    torch.manual_seed(1)
    build_model(job).save_pretrained(folder, job.tokenizer)
    assert embedding_name(folder) != name


def test_embedder_feeds_model_input(
    saved: tuple[Path, TrainJob, TrainingSet, MemoryFrames],
) -> None:
    embedder = Embedder(saved[0])
    fed: list[torch.Tensor] = []
    embedder.model.video.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    stored = noisy(5, SIZES.num_frames)
    embedder.embed([stored], ["product 1"], DOMAINS[:1])
    assert np.array_equal(fed[0][0].numpy(), model_input(stored, SIZES.image_size))


def test_view_of_a_frame_is_the_same_in_validation_batches_and_queries(
    saved: tuple[Path, TrainJob, TrainingSet, MemoryFrames],
    workspace: Workspace,
) -> None:
    """Frames of 9:16, of which the centered square shows half."""
    folder, job, *_ = saved
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (64, 36, 3), np.uint8)) for _ in range(4)]
    stored = [encode_jpeg(image, 90) for image in images][: SIZES.num_frames]
    expected = model_input(stored, SIZES.image_size, "whole")
    assert np.abs(expected - model_input(stored, SIZES.image_size).astype(float)).mean() > 10

    whole = dataclasses.replace(job, model=dataclasses.replace(SIZES, view="whole"))
    model = build_model(whole).eval()
    model.save_pretrained(folder, job.tokenizer)
    assert frame_view(folder) == Embedder(folder).model.view == "whole"

    # Queries, and whatever else an Embedder embeds.
    fed: list[torch.Tensor] = []
    embedder = Embedder(folder)
    for network in (embedder.model, model):
        network.video.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    embedder.embed([stored], ["product 1"], DOMAINS[:1])
    # Validation.
    held_out = TrainingSet(
        products={}, texts={}, validation={"p": {Domain.SHORT: ["a"], Domain.LIVE: ["a"]}}
    )
    validation_score(model, job.tokenizer, held_out, MemoryFrames({"a": stored}))
    assert len(fed) == 2
    assert all(np.array_equal(frames[0].numpy(), expected) for frames in fed)
    # Batch jobs.
    workspace.table(FRAMES).append([{"sample_id": "a", "frames": stored}])
    frames = LanceFrames(workspace)
    batch = pa.table({"sample_id": ["a"], "position": [0]})
    read = read_pixels(batch, frames.uri, frames.version, SIZES.image_size, frame_view(folder))
    assert read["pixels"].to_pylist() == [expected.tobytes()]
    # Training without crops, as of a frozen model.
    products = {name: {Domain.SHORT: ["a"], Domain.LIVE: ["a"]} for name in ("p", "q")}
    batches = ProductBatches(
        TrainingSet(products=products, texts={}),
        MemoryFrames({"a": stored}),
        job.train,
        num_frames=SIZES.num_frames,
        image_size=SIZES.image_size,
        view="whole",
        augment=False,
    )
    assert np.array_equal(batches[0].frames[Domain.LIVE][0].numpy(), expected)


def test_bfloat16_vectors_are_close_to_float32(
    saved: tuple[Path, TrainJob, TrainingSet, MemoryFrames],
) -> None:
    folder, _, _, frames = saved
    names, texts = list(frames.frames)[:4], ["product 1", None, "x", "product 2"]
    domains = [Domain(name.split("-")[0]) for name in names]
    exact, rough = (
        Embedder(folder, bf16=bf16).embed(frames.take(names), texts, domains)
        for bf16 in (False, True)
    )
    assert rough.dtype == np.float32 and not np.array_equal(exact, rough)
    assert (exact * rough).sum(axis=1).min() > 0.999
