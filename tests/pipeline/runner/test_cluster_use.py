"""The ramp of nodes and pools, by hand."""

import pytest

from ampere.pipeline.runner import cluster_use as module
from ampere.pipeline.runner.cluster_use import ClusterUse, cluster_use, ramp


def test_ramp_counts_lifetimes_that_overlap() -> None:
    # A node that was lost at 30 s is replaced at 40 s; another one ended before the job began.
    nodes = ramp([(5.0, 60.0), (20.0, 30.0), (40.0, 60.0), (0.0, -3.0)])
    assert nodes.steps == [(0.0, 0), (5.0, 1), (20.0, 2), (30.0, 1), (40.0, 2), (60.0, 0)]
    assert nodes.seconds == 55 + 10 + 20
    assert (nodes.most, nodes.full_s) == (2, 20.0)


def test_ramp_of_nothing() -> None:
    assert ramp([]).steps == [(0.0, 0)] and ramp([]).most == 0 and ramp([]).full_s == 0.0


def test_use_of_a_cluster_is_that_within_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    monkeypatch.setattr(module.time, "time", lambda: 1100.0)
    # In ms: one node was there before and is still there, one came later and ended.
    monkeypatch.setattr(module, "_nodes", lambda: [(900_000, 0), (1_010_000, 1_060_000)])
    actors = [("EmbedBatch", 1_020_000, 1_090_000), ("EmbedBatch", 1_030_000, 1_055_000)]
    monkeypatch.setattr(module, "_actors", lambda: actors)
    use = cluster_use(1000.0)
    assert use is not None
    assert use.figures() == {
        "nodes": {
            "steps": [(0.0, 1), (10.0, 2), (60.0, 1), (100.0, 0)],
            "seconds": 150.0,
            "most": 2,
            "full_s": 10.0,
        },
        "pools": {
            "EmbedBatch": {
                "steps": [(0.0, 0), (20.0, 1), (30.0, 2), (55.0, 1), (90.0, 0)],
                "seconds": 95.0,
                "most": 2,
                "full_s": 30.0,
            }
        },
    }
    assert str(use) == (
        "cluster: 1 to 2 nodes in 10.0 s, 150 node-seconds; "
        "EmbedBatch: all of 2 actors ready after 30.0 s, 95 actor-seconds"
    )


def test_local_ray_has_no_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster_use(0.0) is None


def test_cluster_without_a_pool() -> None:
    assert (
        str(ClusterUse(ramp([(0.0, 4.0)]), {})) == "cluster: 1 to 1 nodes in 0.0 s, 4 node-seconds"
    )
