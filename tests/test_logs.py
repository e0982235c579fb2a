"""Logs as JSON."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ampere import logs
from ampere.cli import main
from ampere.logs import JsonFormatter, JsonLines, stage_of_log
from ampere.store.workspace import Workspace
from tests.helpers.processes import command
from tests.helpers.workspaces import manifest, row

KEYS = {"time", "level", "stage", "message", "run_id"}
JSON = os.environ | {"AMPERE_LOG_FORMAT": "json", "AMPERE_RUN_ID": "night-7"}


def objects(text: str) -> list[dict[str, str]]:
    """The objects of lines, each of which must be one with all keys."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all(line.keys() >= KEYS for line in found), found
    return found


def ran(stage: str, workspace: Workspace, *flags: str) -> tuple[int, list[dict[str, str]], str]:
    """Exit status, objects of stderr, and stdout of a command whose logs are JSON."""
    ended = subprocess.run(
        command(stage, workspace, flags),
        env=JSON, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return ended.returncode, objects(ended.stderr), ended.stdout


def test_report_of_a_stage_is_json(workspace: Workspace, tmp_path: Path) -> None:
    rows = manifest(tmp_path / "m.csv", row("a"), row("b", domain="shop"))
    status, _, output = ran("prepare", workspace, "--manifest", str(rows))
    lines = objects(output)
    assert status == 0 and lines[-1]["message"].startswith("prepare: 1 rows done"), output
    assert {line["stage"] for line in lines} == {"prepare"}
    assert {line["run_id"] for line in lines} == {"night-7"}
    assert {line["level"] for line in lines} == {"INFO"}


def test_error_is_a_record_of_its_level(workspace: Workspace) -> None:
    status, lines, output = ran("embed", workspace)
    assert status == 2 and output == ""
    (line,) = [line for line in lines if line["level"] == "ERROR"]
    assert line["stage"] == "embed" and line["message"].startswith("ampere embed: ")


def test_answer_of_status_stays_text(workspace: Workspace) -> None:
    status, lines, output = ran("status", workspace)
    assert (status, lines) == (0, []) and output.startswith(f"workspace {workspace.uri}")


def test_interrupt_is_json(workspace: Workspace) -> None:
    flags = ["--watch", "--interval", "60"]
    with subprocess.Popen(
        command("status", workspace, flags), env=JSON, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as job:  # fmt: skip
        assert job.stdout.readline()
        job.send_signal(signal.SIGINT)
        _, errors = job.communicate(timeout=30)
    (line,) = objects(errors)
    assert job.returncode == 130 and "interrupted by SIGINT" in line["message"]


def test_unknown_format_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMPERE_LOG_FORMAT", "xml")
    assert main(["status", "--workspace", workspace.uri]) == 2
    assert "AMPERE_LOG_FORMAT is 'xml'; expected text or json" in capsys.readouterr().err


def test_lines_end_at_returns_and_the_last_one_at_the_end() -> None:
    output = io.StringIO()
    stream = JsonLines(output)
    stream.write("\rdecode: 10%")
    stream.write(" 进度\rdecode: 20%\n\nnot ended")
    assert [line["message"] for line in objects(output.getvalue())] == [
        "decode: 10% 进度",
        "decode: 20%",
    ]
    stream.end()
    assert objects(output.getvalue())[-1]["message"] == "not ended"


def test_record_has_its_stage_and_traceback() -> None:
    try:
        raise ValueError("broken\nframes")
    except ValueError:
        record = logging.getLogger("ampere.pipeline.embed").makeRecord(
            "ampere.pipeline.embed", logging.WARNING, "", 0, "%d failed", (3,), sys.exc_info()
        )
    of_worker = json.loads(JsonFormatter().format(record))
    assert of_worker["stage"] == "embed" and of_worker["level"] == "WARNING"
    assert of_worker["message"] == "3 failed" and "ValueError: broken" in of_worker["traceback"]
    with stage_of_log("embed-ampere"):
        assert json.loads(JsonFormatter().format(record))["stage"] == "embed-ampere"


def test_job_gives_its_id_and_keeps_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {
        "metadata": {"job_submission_id": "raysubmit_1"},
        "runtime_env": {"env_vars": {"AMPERE_LOG_FORMAT": "json"}},
    }
    monkeypatch.setenv(logs.JOB_VARIABLE, json.dumps(job))
    monkeypatch.setenv("AMPERE_RUN_ID", "r")
    assert logs.new_run_id() == "raysubmit_1"
    assert logs.worker_variables() == {"AMPERE_RUN_ID": "r"}


@pytest.mark.e2e
@pytest.mark.nightly
@pytest.mark.timeout(200)
def test_workers_log_json(tmp_path: Path) -> None:
    """A worker's records are in Ray's log folder; here the worker reads what it wrote."""
    program = """
import json, logging, sys
from ampere import logs
logs.configure("decode", shows_answer=False)
from ampere.cluster import connect
connect()
import ray

@ray.remote
def write():
    logging.getLogger("ampere.pipeline.decode").warning("strange file")
    return open("/proc/self/fd/2").read()

print("done")
written = ray.get(write.remote())
print(json.dumps(written))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=JSON, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    written = json.loads(objects(ended.stdout)[-1]["message"])
    (line,) = [line for line in written.splitlines() if "strange file" in line]
    assert objects(line)[0] | {"time": ""} == {
        "time": "", "level": "WARNING", "stage": "decode", "message": "strange file",
        "run_id": "night-7", "logger": "ampere.pipeline.decode",
        "process": objects(line)[0]["process"],
    }  # fmt: skip
