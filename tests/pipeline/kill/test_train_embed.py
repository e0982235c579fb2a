"""Kill and resume: a training and an embed job whose driver dies with all its workers."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from ampere.cli import main
from ampere.config.embed import EmbedSettings
from ampere.models.model_folder import embedding_name, frozen_tower
from ampere.records import FEATURES, SAMPLES
from ampere.store.embeddings import embeddings_spec
from ampere.store.workspace import Workspace
from tests.helpers.features import computed_features
from tests.helpers.processes import ids, kill_half_way, start, wait_until
from tests.helpers.training import frozen_job, small_job, small_set
from tests.helpers.workloads import add_products, save_model

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.e2e,
    pytest.mark.usefixtures("local_ray"),
]
PRODUCTS = 20


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """Twenty training products with two samples in each domain, and their frames."""
    add_products(workspace, PRODUCTS)
    return workspace


FLAGS = ["--embed.model", "m", "--embed.batch-size", "1"]


@pytest.mark.nightly  # the runner is the one that test_kill_decode kills
def test_kill_embed(filled: Workspace) -> None:
    """The committed rows are kept, and the rerun embeds the others."""
    folder = save_model(filled, small_job(small_set(PRODUCTS)[0]))
    spec = embeddings_spec(embedding_name(folder))
    done = kill_half_way("embed", filled, spec, FLAGS)
    assert 0 < done < PRODUCTS * 6
    assert main(["embed", "--workspace", filled.uri, *FLAGS]) == 0
    assert ids(filled, spec) == ids(filled, SAMPLES)


def stored_features(workspace: Workspace) -> dict[str, np.ndarray]:
    """Features by sample; fails if a sample has two rows."""
    rows = workspace.table(FEATURES).read(["sample_id", "features"]).to_pylist()
    assert ids(workspace, FEATURES) == sorted({row["sample_id"] for row in rows})
    return {row["sample_id"]: np.array(row["features"]) for row in rows}


@pytest.mark.nightly
def test_kill_features(filled: Workspace) -> None:
    """The committed features are kept; the others are those of an undisturbed run."""
    folder = save_model(filled, frozen_job(small_set(PRODUCTS)[0]))
    done = kill_half_way("embed", filled, FEATURES, FLAGS)
    assert 0 < done < PRODUCTS * 6
    kept = stored_features(filled)
    assert main(["embed", "--workspace", filled.uri, *FLAGS]) == 0
    features = stored_features(filled)
    assert sorted(features) == ids(filled, SAMPLES)
    assert all(np.array_equal(features[name], array) for name, array in kept.items())
    undisturbed = computed_features(filled, frozen_tower(folder), EmbedSettings(batch_size=1))
    for row in undisturbed.to_pylist():
        # In one process with other threads, sums differ in the last bit.
        np.testing.assert_allclose(features[row["sample_id"]], row["features"], rtol=2e-3)
    assert ids(filled, embeddings_spec(embedding_name(folder))) == ids(filled, SAMPLES)


@pytest.mark.nightly
def test_kill_train(filled: Workspace, tmp_path: Path) -> None:
    """The training resumes from its last checkpoint."""
    log = tmp_path / "log"
    flags = [
        "--train.name", "killed", "--train.text", "none", "--train.epochs", "12",
        "--train.workers", "1", "--train.batch-size", "8", "--train.log-every", "1",
        "--train.checkpoint-every", "3", "--model.num-frames", "2",
    ]  # fmt: skip
    metrics = Path(filled.uri) / "logs" / "killed" / "metrics.jsonl"

    def lines() -> list[str]:
        return metrics.read_text("utf-8").splitlines() if metrics.exists() else []

    job = start("train", filled, flags, log)
    wait_until(job, lambda: len(lines()) >= 12, log)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    before = lines()
    assert main(["train", "--workspace", filled.uri, *flags]) == 0
    after = lines()
    steps = [json.loads(line)["step"] for line in after]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > len(before)
    # Steps before the last checkpoint were not made again: even their times are the same.
    resumed = (len(before) - 1) // 3 * 3 - 3
    assert after[:resumed] == before[:resumed] and resumed >= 6
    assert not filled.names("runs")
