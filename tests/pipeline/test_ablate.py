"""The paper's tables over a workspace: rows are trained once, and a row that cannot be has its reason."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.config import AblateSettings, Settings
from ampere.pipeline import ablate
from ampere.pipeline.ablate import Row, to_json, to_markdown
from ampere.systems import SYSTEMS, TABLES
from ampere.workspace import Workspace
from tests.conftest import DemoRun


def test_every_row_of_the_tables_is_a_system() -> None:
    assert {system for table in TABLES.values() for system in table} <= set(SYSTEMS)
    assert list(TABLES) == list(AblateSettings().tables)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("local_ray")
def test_a_table_over_the_demo(
    demo: DemoRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(shutil.copytree(demo.folder / "workspace", tmp_path / "workspace"))
    monkeypatch.setattr(ablate, "TABLES", {"V": {"visual": 56.9, "uie": 57.8}})
    flags = ["--workspace", workspace.uri, "--ablate.tables", "V", "--train.epochs", "1"]
    assert main(["ablate", *flags]) == 0
    first = capsys.readouterr().out
    assert "train: 2" in first and "ablate: uie has no result: no summaries of method uie; run `ampere summ" in first
    report = json.loads((tmp_path / "workspace" / "reports" / "ablation.json").read_text("utf-8"))
    visual, uie = report["systems"]["visual"], report["systems"]["uie"]
    low, high = visual["interval"]
    assert 0 <= low <= visual["mR1"] <= high <= 100 and visual["paper_on_ROPE"] == {"V": 56.9}
    assert uie["mR1"] is None and "no summaries of method uie" in uie["reason"]
    assert "visual-0" in workspace.names("models")
    assert main(["ablate", *flags]) == 0
    assert "train: 0 products done" in capsys.readouterr().out


def result(**recalls: float) -> dict[str, object]:
    tasks = {task: {"R1": recalls.get(task, 0.0)} for task in ("P2S", "P2L", "S2P", "S2L", "L2P", "L2S")}
    return {"tasks": tasks, "mR1": sum(recalls.values()) / 6, "chance_mR1": 2.0}


def test_the_report_shows_means_over_seeds_and_reasons(tmp_path: Path) -> None:
    settings = Settings(ablate=AblateSettings(tables=("XI",), seeds=(0, 1)))
    rows = {system: Row(system, reason="it failed") for system in TABLES["XI"]}
    rows["ampere"] = Row("ampere", (result(P2S=60.0), result(P2S=90.0, L2S=30.0)), (9.5, 21.0))
    lines = to_markdown(rows, settings).splitlines()
    (ampere,) = [line for line in lines if line.startswith("| ampere |")]
    about = SYSTEMS["ampere"].about
    assert ampere == f"| ampere | {about} | 75.0 | 0.0 | 0.0 | 0.0 | 0.0 | 15.0 | 15.0 (9.5 to 21.0) | 60.2 |"
    (failed,) = [line for line in lines if line.startswith("| without-page |")]
    header = next(line for line in lines if line.startswith("| system"))
    assert failed.count("|") == ampere.count("|") == header.count("|") and "no result | it failed" in failed
    assert any(line.startswith("| (chance)") and "2.0" in line for line in lines)
    report = json.loads(to_json(rows, settings))
    assert report["systems"]["ampere"]["tasks"]["P2S"] == 75 and report["systems"]["without-page"]["mR1"] is None
    assert math.isnan(rows["without-page"].mean()) and report["settings"] == json.loads(
        json.dumps(dataclasses.asdict(settings))
    )
