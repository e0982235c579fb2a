"""A real Prometheus that scrapes a Ray."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.helpers.processes import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
# Of Grafana, which puts its own number there.
RATE_INTERVAL = "$__rate_interval"


def program(name: str) -> str:
    """The path of a program of Debian's package `prometheus`; skips the test without it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (apt-get install prometheus)")
    return path


def panels() -> dict[str, list[str]]:
    """Title of each panel of the board -> its queries."""
    board = json.loads((DEPLOY / "grafana" / "ampere.json").read_text("utf-8"))
    return {
        panel["title"]: [target["expr"] for target in panel["targets"]] for panel in board["panels"]
    }


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus.

    Attributes:
        started: seconds since the epoch.
    """

    url: str
    started: float

    def series(self, query: str) -> list[dict[str, Any]]:
        """The series of a query since the start, without those of NaN only."""
        found = httpx.get(
            f"{self.url}/api/v1/query_range",
            params={
                "query": query.replace(RATE_INTERVAL, "1m"),
                "start": self.started,
                "end": time.time(),
                "step": 5,
            },
            timeout=30,
        )
        assert found.status_code == 200, found.text
        return [
            series
            for series in found.json()["data"]["result"]
            if any(value != "NaN" for _, value in series["values"])
        ]


@contextmanager
def prometheus(folder: Path, discovery: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the configuration of deploy/, but for the file of nodes and the pace.

    Args:
        folder: for its data.
        discovery: Ray's file of nodes.
    """
    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    config["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
    config["rule_files"] = [str(CONFIG.parent / name) for name in config["rule_files"]]
    (files,) = config["scrape_configs"][0]["file_sd_configs"]
    files |= {"files": [str(discovery)], "refresh_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        program("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    started, log = time.time(), folder / "log"
    with log.open("w") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            while not is_ready(url):
                try:  # the pause between two looks
                    process.wait(timeout=0.1)
                    pytest.fail(f"Prometheus ended by itself: {log.read_text()[-3000:]}")
                except subprocess.TimeoutExpired:
                    continue
            yield Prometheus(url, started)
        finally:
            process.terminate()


def is_ready(url: str) -> bool:
    """Whether a Prometheus answers queries."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/-/ready", timeout=5).status_code == 200
    return False
