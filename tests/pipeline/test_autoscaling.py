"""Pools on a cluster whose autoscaler adds nodes from none on: they grow under load, and all goes.

On one machine the nodes share its cores, so these tests show that and when pools grow, not speed.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ampere.config.model import ModelSettings
from ampere.models.model_folder import embedding_name
from ampere.records import FAILURES, SAMPLES, SUMMARIES, TableSpec
from ampere.store.embeddings import embeddings_spec
from ampere.store.workspace import Workspace
from ampere.synthetic.products import demo_products
from ampere.synthetic.speech import recognize, say
from tests.helpers.autoscaling import AutoscalingCluster, autoscaling_cluster
from tests.helpers.embed_job import nodes_of_rows
from tests.helpers.processes import ids
from tests.helpers.training import SIZES, small_job, small_set
from tests.helpers.workloads import add_products, save_model

pytestmark = [pytest.mark.nightly, pytest.mark.e2e, pytest.mark.timeout(1200)]
NODES = 2
PRODUCTS = 1000  # six samples each: enough work for the pool to be full long before it ends
BATCH = 64  # so large that the model is slower than reading; else a second actor would only wait
TRANSCRIPTS = 3000
IDLE_S = 60.0  # in which idle nodes are gone, and in which none may come again


@pytest.fixture(scope="module")
def autoscaled() -> Iterator[AutoscalingCluster]:
    """A cluster of 0 to 2 nodes of one core."""
    with autoscaling_cluster(NODES, {"CPU": 1}) as cluster:
        yield cluster


@pytest.fixture
def filled(workspace: Workspace) -> tuple[Workspace, TableSpec]:
    """A workspace with frames and a model of some work for each row, and the table to fill."""
    add_products(workspace, PRODUCTS)
    sizes = {"vision_width": 192, "vision_layers": 72, "vision_heads": 4}
    job = small_job(small_set(PRODUCTS)[0])
    folder = save_model(workspace, replace(job, model=ModelSettings(**vars(SIZES) | sizes)))
    return workspace, embeddings_spec(embedding_name(folder))


def arguments(workspace: Workspace) -> list[str]:
    """Of Python, for an embed job whose actors write down their rows."""
    return [
        "-m", "tests.helpers.embed_job", "embed", "--workspace", workspace.uri,
        "--embed.model", "m", "--embed.batch-size", str(BATCH), "--embed.workers", f"0:{NODES}",
    ]  # fmt: skip


def figures_of(workspace: Workspace, stage: str) -> dict[str, Any]:
    """The JSON report of a stage."""
    return json.loads(workspace.read_report(f"{stage}-figures.json") or "{}")


def seconds_full(ramp: dict[str, Any]) -> float:
    """How long there was the largest number; a pool may shrink again at once."""
    return sum(
        later - at for (at, count), (later, _) in pairwise(ramp["steps"]) if count == ramp["most"]
    )


def check_growth(figures: dict[str, Any], pool: str) -> None:
    """Fail unless nodes and pool grew from none to the maximum."""
    nodes, actors = figures["cluster"]["nodes"], figures["cluster"]["pools"][pool]
    assert nodes["steps"][0] == [0.0, 0] == actors["steps"][0]
    assert nodes["most"] == NODES, f"{nodes['most']} of {NODES} nodes"
    assert actors["most"] == NODES, f"{actors['most']} of {NODES} actors"
    assert 0 < actors["seconds"] < nodes["seconds"]
    assert nodes["full_s"] < actors["full_s"]
    assert seconds_full(actors) > (actors["steps"][-1][0] - actors["full_s"]) / 2


def check_gone(cluster: AutoscalingCluster) -> None:
    """Fail unless all nodes are gone in a minute, and none comes in the next."""
    assert cluster.wait_until(lambda: not cluster.raylets(), IDLE_S)
    assert cluster.nodes_during(IDLE_S) == set()


def test_embed_grows_from_no_node_to_all_and_back_to_none(
    autoscaled: AutoscalingCluster, filled: tuple[Workspace, TableSpec], tmp_path: Path
) -> None:
    workspace, table = filled
    log = tmp_path / "log"
    job = autoscaled.run(arguments(workspace), log)
    assert job.wait(timeout=800) == 0, log.read_text()[-3000:]
    assert ids(workspace, table) == ids(workspace, SAMPLES)
    assert {len(nodes) for nodes in nodes_of_rows(workspace).values()} == {1}  # none was repeated
    figures = figures_of(workspace, "embed-m")
    check_growth(figures, "EmbedBatch")
    # Before the pool's first actor there is work for one node, which is that actor.
    nodes, actors = figures["cluster"]["nodes"], figures["cluster"]["pools"]["EmbedBatch"]
    assert max(count for at, count in nodes["steps"] if at < actors["steps"][1][0]) == 1
    assert 0 < figures["pool"]["busy_share"] <= 1
    assert 0 < figures["cluster"]["first_row_s"] < actors["full_s"]
    assert f"cluster: 0 to {NODES} nodes" in log.read_text()
    check_gone(autoscaled)


def test_lost_node_costs_its_batch_alone(
    autoscaled: AutoscalingCluster, filled: tuple[Workspace, TableSpec], tmp_path: Path
) -> None:
    workspace, table = filled
    log = tmp_path / "log"
    job = autoscaled.run(arguments(workspace), log)

    def working() -> set[str]:
        return {node for nodes in nodes_of_rows(workspace).values() for node in nodes}

    assert autoscaled.wait_until(lambda: len(working()) == NODES, 400), log.read_text()[-3000:]
    lost, raylet = next(iter(autoscaled.raylets().items()))
    raylet.kill()
    assert job.wait(timeout=800) == 0, log.read_text()[-3000:]
    assert ids(workspace, table) == ids(workspace, SAMPLES)
    repeated = [nodes for nodes in nodes_of_rows(workspace).values() if len(nodes) > 1]
    # The batch that the actor was at, and one whose result had not left the node yet.
    assert len(repeated) <= 2 * BATCH
    assert all(nodes[0] == lost and len(nodes) == 2 for nodes in repeated)
    check_growth(figures_of(workspace, "embed-m"), "EmbedBatch")
    check_gone(autoscaled)


def test_pool_that_does_not_grow_is_noticed(
    autoscaled: AutoscalingCluster, filled: tuple[Workspace, TableSpec], tmp_path: Path
) -> None:
    """A pool grows if its actors' queues are full; with a threshold above that it stays at one."""
    workspace, table = filled
    log = tmp_path / "log"
    job = autoscaled.run(
        arguments(workspace),
        log,
        RAY_DATA_DEFAULT_ACTOR_POOL_UTIL_UPSCALING_THRESHOLD="3",
    )
    assert job.wait(timeout=800) == 0, log.read_text()[-3000:]
    assert ids(workspace, table) == ids(workspace, SAMPLES)
    with pytest.raises(AssertionError, match=f"1 of {NODES}"):
        check_growth(figures_of(workspace, "embed-m"), "EmbedBatch")


@pytest.mark.timeout(1500)
def test_summarize_grows_from_no_node_to_all_and_back_to_none(
    workspace: Workspace, tmp_path: Path
) -> None:
    """With the language model of the package in vLLM; an engine and its helpers need two cores."""
    rng, log = random.Random(0), tmp_path / "log"
    products = list(demo_products(rng, 300))
    workspace.table(SAMPLES).append(
        [
            {"sample_id": f"s{i}", "domain": "live"}
            | {"text": recognize(say(products[i % len(products)], rng, lines=6), rng)}
            for i in range(TRANSCRIPTS)
        ]
    )
    flags = ["--summarize.workers", f"1:{NODES}", "--summarize.batch-size", "16"]
    flags += ["--summarize.max-num-seqs", "16"]
    with autoscaling_cluster(NODES, {"CPU": 2}) as cluster:
        job = cluster.run(
            ["-m", "ampere.cli", "summarize", "--workspace", workspace.uri, *flags], log
        )
        assert job.wait(timeout=1200) == 0, log.read_text()[-3000:]
        answered = ids(workspace, SUMMARIES) + ids(workspace, FAILURES)
        assert sorted(answered) == ids(workspace, SAMPLES)
        check_growth(figures_of(workspace, "summarize"), "Engine")
        check_gone(cluster)
