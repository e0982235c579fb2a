"""The metrics of a stage: counted once, seen by Ray's export, silent without Ray."""

import re
import threading
from collections import Counter

import httpx
import pytest

from ampere.config.decode import DecodeSettings
from ampere.pipeline import metrics
from ampere.pipeline.decode import DecodeStage
from ampere.pipeline.metrics import DATA_WAIT, ROWS_DONE, ROWS_FAILED, Publisher, publish_report
from ampere.pipeline.runner.pool_observer import POOLS, Pool, Pools, seen_pool
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.train.metrics_channel import waited_s
from ampere.store.workspace import Workspace

EXPORT_S = 40  # Ray's processes report every 10 s


class Counted:
    """Stands for Ray's counter."""

    def __init__(self) -> None:
        self.values: Counter[str] = Counter()

    def inc(self, value: float, labels: dict[str, str]) -> None:
        self.values[" ".join(labels.values())] += value


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counted]:
    """Counters by name, of a process that is connected to Ray."""
    counters: dict[str, Counted] = {}
    monkeypatch.setattr(metrics, "is_connected", lambda: True)
    monkeypatch.setattr(
        metrics, "_of_ray", lambda metric: counters.setdefault(metric.name, Counted())
    )
    return counters


def test_growing_report_is_counted_once(counted: dict[str, Counted]) -> None:
    report = Report("decode", "there", done=3, failed=Counter(MissingMedia=1))
    publisher = Publisher(lambda publisher: publisher.count_report(report))
    publisher.count_report(report)
    report.done, report.totals = 5, {"GB": 0.5, "other": 1.0}
    report.failed.update(["MissingMedia", "DecodeError"])
    publisher.count_report(report)
    publisher.count_report(report)
    assert counted[ROWS_DONE.name].values == {"decode": 5}
    assert counted[ROWS_FAILED.name].values == {"decode MissingMedia": 2, "decode DecodeError": 1}
    assert counted["ampere_bytes_read_total"].values == {"decode media": 0.5e9}


def test_total_that_shrinks_is_not_counted_again(counted: dict[str, Counted]) -> None:
    publisher = Publisher(lambda _: None)
    for total in (5.0, 2.0, 5.0, 6.0):
        publisher.count_to(DATA_WAIT, total, stage="embed", pool="EmbedBatch")
    assert counted[DATA_WAIT.name].values == {"embed EmbedBatch": 6.0}


def test_look_that_fails_does_not_fail_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "REFRESH_S", 0.01)
    looks = threading.Semaphore(0)

    def look(_: Publisher) -> None:
        looks.release()
        raise OSError("the store does not answer")

    with Publisher(look):
        for _ in range(3):
            assert looks.acquire(timeout=10)
    assert "the store does not answer" in caplog.text


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection to Ray, even if another test of this process has started it."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)


@pytest.mark.usefixtures("no_ray")
def test_nothing_is_recorded_without_ray(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(metrics, "_of_ray", lambda metric: pytest.fail(f"records {metric.name}"))
    publish_report(Report("prepare", "there", done=3))
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("no_ray")
def test_cluster_that_does_not_answer_costs_the_metrics_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    publish_report(Report("prepare", "there", done=3))
    assert "prepare: metrics are not published: RAY_ADDRESS is" in capsys.readouterr().err


class Operator:
    """Stands for one of Ray Data's operators with a pool of two actors, one of them idle."""

    name = "MapBatches(EmbedBatch)"
    bytes_task_inputs_processed = 100

    def __init__(self) -> None:
        self.metrics = self

    def get_autoscaling_actor_pools(self) -> list["Operator"]:
        return [self]

    def num_alive_actors(self) -> int:
        return 2

    num_pending_actors = num_restarting_actors = num_idle_actors = lambda self: 1

    def max_size(self) -> int:
        return 4


def test_idle_time_and_bytes_add_up_over_pipelines() -> None:
    """Rows that were lost go through another pipeline, whose operators count from zero."""
    pool = seen_pool(Operator(), Pool(idle_s=2.0), 1.5)
    assert pool == Pool(ready=2, starting=2, limit=4, idle_s=3.5, bytes_read=100)
    pools = Pools()
    pools._pools["EmbedBatch"] = pool
    pools.begin()
    assert seen_pool(Operator(), pools.get()["EmbedBatch"], 1.0) == Pool(
        ready=2, starting=2, limit=4, idle_s=4.5, bytes_read=200, bytes_before=100
    )


def test_waiting_of_a_training_is_that_of_its_steps() -> None:
    history = [
        {"step": 10.0, "seconds_per_step": 2.0, "waiting_share": 0.5},
        {"step": 30.0, "seconds_per_step": 1.0, "waiting_share": 0.1},
    ]
    assert waited_s(history) == pytest.approx(10 * 2 * 0.5 + 20 * 1 * 0.1)


class CountedStage(DecodeStage):
    """`decode` by a name of its own: other tests of this process count rows of `decode`."""

    name = "decode-counted"


@pytest.mark.nightly  # waits for Ray's export
@pytest.mark.usefixtures("local_ray")
def test_rows_and_tasks_of_decode_reach_rays_export(prepared: Workspace) -> None:
    report = run_stage(CountedStage(prepared, DecodeSettings()), prepared)
    times = [seconds for seconds, _ in report.arrivals]
    assert sum(rows for _, rows in report.arrivals) == report.processed
    assert len(times) > 2 and sorted(times) == times and 0 < times[-1] < report.seconds
    assert report.done > 0 and POOLS.get().keys() == {"decode_to_fragment"}
    line = re.compile(
        rf'^{ROWS_DONE.exported}{{.*stage="decode-counted".*}} {float(report.done)}$', re.MULTILINE
    )
    assert line.search(exported_when(line)), "no such counter"


def exported_when(pattern: re.Pattern[str]) -> str:
    """What this node exports, once a pattern is in it, or after `EXPORT_S`."""
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    pause, text = threading.Event(), ""
    for _ in range(2 * EXPORT_S):
        text = httpx.get(url, timeout=10).text
        if pattern.search(text):
            break
        pause.wait(0.5)
    return text
