"""Stored features of frozen towers: the stage, and training and embedding that read them."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from ampere.config.embed import EmbedSettings
from ampere.config.systems import named_settings
from ampere.media.images import model_input
from ampere.models.ampere import AMPere
from ampere.models.embedder import Embedder
from ampere.models.model_folder import SETTINGS_FILE, embedding_name, frozen_tower
from ampere.pipeline.embed import EmbedBatch, EmbedStage, read_inputs
from ampere.pipeline.features import FeatureBatch, FeaturesStage, embed_features
from ampere.pipeline.train.untrained import save_untrained
from ampere.records import FAILURES, FEATURES, FRAMES, SAMPLES, Domain
from ampere.store.features import LanceFeatures
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from ampere.training.data import ProductBatches
from ampere.training.loop import Training, TrainJob, build_model
from tests.helpers.features import computed_features, features_stage
from tests.helpers.training import FROZEN, frozen_job, small_set

PRODUCTS, WIDTH = 4, 1280
SETTINGS = EmbedSettings(model="m", batch_size=8)


@pytest.fixture
def decoded(workspace: Workspace) -> Workspace:
    """Four products with two samples per domain, and an untrained model `m` of a frozen tower."""
    training_set, frames = small_set(PRODUCTS)
    rows = [
        {"sample_id": name, "product_id": product, "domain": domain, "split": "train"}
        | {"text": training_set.texts[name]}
        for product, domains in training_set.products.items()
        for domain, ids in domains.items()
        for name in ids
    ]
    workspace.table(SAMPLES).upsert(rows)
    workspace.table(FRAMES).upsert(
        [
            {"sample_id": name, "fingerprint": "f", "frames": jpegs}
            for name, jpegs in frames.frames.items()
        ]
    )
    job = frozen_job(training_set)
    torch.manual_seed(0)
    folder = Path(workspace.uri) / "models" / "m"
    build_model(job).save_pretrained(folder, job.tokenizer)
    (folder / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "raw"}}))
    return workspace


def model_path(workspace: Workspace) -> Path:
    return Path(workspace.uri) / "models" / "m"


def stage_of(workspace: Workspace) -> FeaturesStage:
    return features_stage(workspace, frozen_tower(model_path(workspace)), SETTINGS)


def computed(workspace: Workspace) -> pa.Table:
    """Result rows of all samples, without Ray."""
    return computed_features(workspace, frozen_tower(model_path(workspace)), SETTINGS)


@pytest.fixture
def stored(decoded: Workspace) -> Workspace:
    """The workspace with all features."""
    decoded.table(FEATURES).upsert(computed(decoded))
    return decoded


def lance_features(workspace: Workspace) -> LanceFeatures:
    return LanceFeatures(workspace, frozen_tower(model_path(workspace)), LanceFrames(workspace))


def test_stored_features_are_those_of_the_models_tower(stored: Workspace) -> None:
    model = AMPere.from_pretrained(model_path(stored))
    assert model.video is not None
    ids = ["live-00-0", "page-03-1"]
    features = lance_features(stored).take_features(ids)
    for jpegs, array in zip(LanceFrames(stored).take(ids), features, strict=True):
        pixels = torch.from_numpy(model_input(jpegs, FROZEN.image_size))[None]
        assert array.dtype == np.float16 and array.shape == (len(jpegs), WIDTH)
        expected = model.video.frozen_features(pixels)[0].numpy()
        # Sums of other batches differ in the last bit, which float16 may round the other way.
        np.testing.assert_allclose(array, expected, rtol=2e-3, atol=1e-4)


def test_features_of_changed_frames_are_stale(stored: Workspace) -> None:
    assert stage_of(stored).plan(stored).counts()["done"] == PRODUCTS * 6
    changed = {"sample_id": "page-00-0", "fingerprint": "other", "frames": [b"x"]}
    stored.table(FRAMES).upsert([changed])
    assert stage_of(stored).plan(stored).counts()["stale"] == 1
    assert "page-00-0" not in lance_features(stored)
    assert "page-00-1" in lance_features(stored)


def test_a_picture_that_cannot_be_read_fails_alone(decoded: Workspace) -> None:
    broken = {"sample_id": "page-00-0", "fingerprint": "f", "frames": [b"no picture"]}
    decoded.table(FRAMES).upsert([broken])
    rows = computed(decoded).to_pylist()
    assert [row["sample_id"] for row in rows if row["error_type"]] == ["page-00-0"]
    assert sum(row["features"] is not None for row in rows) == PRODUCTS * 6 - 1


def test_features_beyond_float16_are_errors(
    decoded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = FeatureBatch(decoded.uri, FROZEN, FROZEN.image_size, SETTINGS)
    monkeypatch.setattr(
        actor.video, "frozen_features", lambda frames: torch.full((len(frames), 1, 4), float("inf"))
    )
    pixels = np.zeros((1, 3, 32, 32), np.uint8)
    (row,) = actor._compute([{"sample_id": "a", "fingerprint": "f", "pixels": pixels}])
    assert "exceeds float16's limit of 65504" in row["error_message"]


def embedded(workspace: Workspace, batch: pa.Table) -> dict[str, Any]:
    actor = EmbedBatch(workspace.uri, embedding_name(model_path(workspace)), SETTINGS)
    rows = actor(batch).to_pylist()
    assert not [row for row in rows if row["error_type"]]
    return {row["sample_id"]: np.array(row["vector"]) for row in rows}


def embed_inputs(workspace: Workspace) -> pa.Table:
    stage = EmbedStage(workspace, SETTINGS)
    rows = stage.inputs()
    location = stage.features.location if stage.features else None
    frames = stage.frames
    return read_inputs(rows, frames.uri, frames.version, FROZEN.image_size, "center", location)


def test_vectors_from_features_and_from_pixels_agree(decoded: Workspace) -> None:
    """To 1e-4, from rounding in batches of other sizes; also where some samples lack features."""
    from_pixels = embedded(decoded, embed_inputs(decoded))
    rows = computed(decoded).filter(pa.array([i % 3 > 0 for i in range(PRODUCTS * 6)]))
    decoded.table(FEATURES).upsert(rows)
    batch = embed_inputs(decoded)
    assert batch["num_frames"].null_count == PRODUCTS * 2  # the rest are read as pictures
    from_features = embedded(decoded, batch)
    assert from_features.keys() == from_pixels.keys()
    for name, vector in from_pixels.items():
        np.testing.assert_allclose(from_features[name], vector, atol=1e-4)


def test_embedding_reads_no_pictures_of_samples_with_features(stored: Workspace) -> None:
    batch = embed_inputs(stored)
    for row in batch.to_pylist():
        assert len(row["pixels"]) == 2 * WIDTH * row["num_frames"]


def training_losses(job: TrainJob, frames: Any) -> list[float]:
    """The contrastive loss of every step of a training."""
    metrics: list[dict[str, float]] = []
    Training(job, frames).run(metrics.append)
    return [row["contrastive"] for row in metrics]


class Pictures:
    """Stored frames without their features."""

    def __init__(self, workspace: Workspace) -> None:
        self.frames = LanceFrames(workspace)

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        return self.frames.take(sample_ids)


@pytest.mark.parametrize(
    "train",
    [
        pytest.param({"text": "none"}, id="frames"),
        # All but 1 % of the samples with text: crops and features draw other random numbers, so
        # that a smaller share would drop other samples.
        pytest.param({"text": "raw", "frame_dropout": 0.99}, id="dropped frames"),
    ],
)
def test_training_on_features_equals_training_on_uncropped_pictures(
    stored: Workspace, train: dict[str, Any]
) -> None:
    """The same losses in every step, and no picture is read."""
    assert FROZEN.missing_frames == "black"
    # Frames of one color look the same in any crop.
    job = frozen_job(small_set(PRODUCTS)[0], crop_scale=1.0, **train)
    on_pictures = training_losses(job, Pictures(stored))
    on_features = training_losses(job, lance_features(stored))
    assert len(on_features) == 2 and on_features[1] < on_features[0]
    np.testing.assert_allclose(on_features, on_pictures, rtol=1e-3)


def test_batches_of_features(stored: Workspace) -> None:
    """Pages have one row of features, clips `num_frames`; a domain without samples none."""
    training_set, _ = small_set(3, {0: (Domain.PAGE, Domain.SHORT), 1: (Domain.PAGE, Domain.SHORT)})
    del training_set.products["p02"]  # type: ignore[attr-defined]
    train = frozen_job(training_set).train
    batch = ProductBatches(
        training_set, lance_features(stored), train, num_frames=2, image_size=32
    )[0]
    assert batch.frames[Domain.PAGE].shape == (2, 1, WIDTH)
    assert batch.frames[Domain.SHORT].shape == (2, 2, WIDTH)
    assert batch.frames[Domain.LIVE].shape == (0, 2, WIDTH)
    assert batch.frames[Domain.PAGE].dtype == torch.float16


class Breaks(FeatureBatch):
    """Fails the job in the second batch, when the first was committed."""

    def __init__(self, uri: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(uri, *args, **kwargs)
        self.table, self.calls = Workspace.open(uri).table(FEATURES), 0

    def __call__(self, batch: pa.Table) -> pa.Table:
        self.calls += 1
        while self.calls == 2:
            if self.table.count():
                raise RuntimeError("broken")
            time.sleep(0.02)
        return super().__call__(batch)


@pytest.mark.nightly  # starts three actor pools
def test_reruns_compute_what_is_missing(
    decoded: Workspace, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that broke is finished without a row lost, doubled or computed again.

    `tests/pipeline/kill/test_train_embed.py` kills one.
    """
    rows = PRODUCTS * 6
    with monkeypatch.context() as broken:
        broken.setattr("ampere.pipeline.features.FeatureBatch", Breaks)
        with pytest.raises(RuntimeError, match="rerun to resume"):
            embed_features(decoded, SETTINGS)
    done = decoded.table(FEATURES).count()
    assert done == SETTINGS.batch_size
    report = embed_features(decoded, SETTINGS)
    assert report is not None and report.succeeded
    assert (report.skipped, report.done) == (done, rows - done)
    assert not decoded.table(FAILURES).count()
    stored = decoded.table(FEATURES).read().to_pylist()
    expected = {row["sample_id"]: row for row in computed(decoded).to_pylist()}
    assert sorted(row["sample_id"] for row in stored) == sorted(expected)
    for row in stored:
        features = expected[row["sample_id"]]["features"]
        np.testing.assert_allclose(row["features"], features, rtol=2e-3, atol=1e-4)
    again = embed_features(decoded, SETTINGS)
    assert again is not None and (again.skipped, again.done) == (rows, 0)


def test_search_without_training(decoded: Workspace) -> None:
    """`small+zero-shot` embeds without labels, training or Ray, and its vectors are features."""
    settings = named_settings("small+zero-shot")
    assert save_untrained(decoded, settings)
    assert not save_untrained(decoded, settings)  # once
    folder = Path(decoded.uri) / "models" / "zero-shot"
    assert (folder / "README.md").exists()
    embedder = Embedder(folder)
    frames = LanceFrames(decoded).take(["page-00-0", "page-01-0", "page-00-1"])
    vectors = embedder.embed(frames, [None] * 3, [Domain.PAGE] * 3)
    assert vectors.shape == (3, WIDTH)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]  # of one product, of two
    assert embed_features(decoded, EmbedSettings(model="zero-shot")) is None
    names = EmbedStage(decoded, EmbedSettings(model="zero-shot")).inputs()["sample_id"]
    assert len(names) == PRODUCTS * 6


def test_systems_that_train_are_not_saved_untrained(decoded: Workspace) -> None:
    assert not save_untrained(decoded, named_settings("small"))
    assert decoded.names("models") == ["m"]
