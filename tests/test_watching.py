"""The metrics of a run in Prometheus: the board's queries, the rules, and a real scrape."""

import csv
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
import yaml

from ampere.pipeline.metrics import METRICS, QUANTITIES
from ampere.store.workspace import Workspace
from tests.helpers.endpoint import serving
from tests.helpers.processes import command
from tests.helpers.prometheus import CONFIG, Prometheus, panels, program, prometheus
from tests.helpers.ray_head import ray_head
from tests.helpers.speech_models import write_faster_whisper, write_whisper

RULES = CONFIG.parent / "alerts.yml"
SPEECH = Path(__file__).parent / "data" / "speech"
NAME = re.compile(r"\b(?:ray_)?ampere[_:][a-z0-9_:]+")
HISTOGRAM_PARTS = ("", "_bucket", "_count", "_sum")
UNITS = ("_total", "_seconds", "_timestamp_seconds", "_rows_pending", "_workers", "_workers_limit")


def rules() -> dict[str, str]:
    """Name of each rule -> its expression."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {
        rule.get("record") or rule["alert"]: rule["expr"]
        for group in groups
        for rule in group["rules"]
    }


def exported() -> set[str]:
    """All names that the code exports to Prometheus."""
    return {
        metric.exported + part
        for metric in METRICS
        for part in (HISTOGRAM_PARTS if metric.kind == "Histogram" else ("",))
    }


def test_names_follow_prometheus() -> None:
    for metric in METRICS:
        assert metric.name.startswith("ampere_") and metric.name.endswith(UNITS), metric
        assert metric.name.endswith("_total") == (metric.kind == "Counter"), metric
        assert metric.help, metric
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric, labels, _ in QUANTITIES.values():
        assert {"stage", *labels} == set(metric.labels)


def test_queries_name_only_what_the_code_and_the_rules_define() -> None:
    known = exported() | rules().keys()
    queries = [*rules().values(), *(query for texts in panels().values() for query in texts)]
    for query in queries:
        assert NAME.findall(query), query
        assert set(NAME.findall(query)) <= known, query


def test_every_metric_is_on_the_board() -> None:
    shown = " ".join(query for texts in panels().values() for query in texts)
    shown += " ".join(expression for name, expression in rules().items() if name in shown)
    missing = [metric.exported for metric in METRICS if metric.exported not in shown]
    assert missing == []


@pytest.mark.parametrize(
    "arguments",
    [["check", "config", str(CONFIG)], ["test", "rules", str(RULES.with_name("alerts_test.yml"))]],
    ids=["configuration and rules", "alerts"],
)
def test_promtool(arguments: list[str]) -> None:
    checked = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def run(stage: str, workspace: Workspace, environment: Mapping[str, str], *flags: str) -> None:
    """Run a command on the cluster of an environment; fails if it does."""
    ended = subprocess.run(
        command(stage, workspace, flags),
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def write_manifest(catalog: Path, path: Path) -> None:
    """The catalog's manifest, with clips of speech that no frames can be decoded of."""
    shutil.copy(catalog / "manifest.csv", path)
    with path.open("a", encoding="utf-8", newline="") as file:
        header = (catalog / "manifest.csv").read_text("utf-8").splitlines()[0].split(",")
        writer = csv.DictWriter(file, header, restval="")
        for name in ("en-sofa", "zh-tea"):
            media = str(SPEECH / f"{name}.opus")
            writer.writerow({"sample_id": name, "domain": "live", "media": media})


@pytest.mark.nightly
@pytest.mark.e2e
@pytest.mark.timeout(1200)
def test_every_panel_of_the_board_shows_a_run(
    tmp_path: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("prometheus")
    whisper = write_whisper(tmp_path / "whisper")
    speech = write_faster_whisper(tmp_path / "speech", whisper)
    manifest = catalog / "with-speech.csv"
    write_manifest(catalog, manifest)
    with ray_head() as head:
        discovery = head.folder / "prom_metrics_service_discovery.json"
        environment = {**head.environment, "RAY_ADDRESS": head.address}
        with prometheus(tmp_path, discovery) as watcher:
            workspace = Workspace.create(tmp_path / "w", "demo")
            run("prepare", workspace, environment, "--manifest", str(manifest))
            flags = ["--transcribe.model", str(speech), "--transcribe.cpus", "0.5"]
            run("transcribe", workspace, environment, *flags)
            short = ["--train.epochs", "2", "--summarize.cpus", "0.5", "--embed.cpus", "0.5"]
            run("run", workspace, environment, "--from", "decode", "--until", "index", *short)
            for name in [name for name in os.environ if name.startswith("RAY_")]:
                monkeypatch.delenv(name)
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            cores = ["--serve.cpus", "0.2"]
            with (
                serving(workspace, tmp_path / "serve.log", cores) as endpoint,
                endpoint.client as client,
            ):
                empty = queries_without_data(watcher, client)
        assert empty == []


def queries_without_data(watcher: Prometheus, client: httpx.Client) -> list[str]:
    """Search until every query of the board has data, for a minute; returns those without."""
    pause = threading.Event()
    queries = [query for texts in panels().values() for query in texts]
    for _ in range(30):
        client.post("/v1/search", json={"text": "red shoes"}).raise_for_status()
        queries = [query for query in queries if not watcher.series(query)]
        if not queries:
            break
        pause.wait(2)
    return queries
