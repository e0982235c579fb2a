"""`ampere plan` on real workspaces."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.config.cluster_shape import parse_shape
from ampere.config.systems import named_settings
from ampere.records import FRAMES, SAMPLES, Domain
from ampere.store.workspace import Workspace
from ampere.workflows.planning.calibrate import Calibration, part_of, random_ids
from ampere.workflows.planning.fit import Measured, fit
from ampere.workflows.planning.run import predict
from ampere.workflows.planning.show import format_plan, plan_json
from tests.helpers.processes import command

SETTINGS = named_settings("demo+zero-shot")
SHAPE = parse_shape("cpu=4x8")


def fill(workspace: Workspace, count: int, origin: str = "catalog") -> None:
    """Add samples without media."""
    rows = [
        {
            "sample_id": f"{origin}{i}",
            "domain": str(Domain.PAGE),
            "split": "test",
            "origin": origin,
            "media_kind": "file",
            "media_uris": ["/none.jpg"],
            "fingerprint": "f",
        }
        for i in range(count)
    ]
    workspace.table(SAMPLES).append(rows)


def plan(workspace: Workspace, *flags: str) -> int:
    return main(["plan", "--workspace", workspace.uri, "--rows", "1000", *flags])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cluster", "16"], "--cluster has '16'; expected NAME=NODESxCORES"),
        (["--cluster", "cpu=1x2", "--prices", "gpu=1"], "--prices names 'gpu'"),
        (["--cluster", "cpu=1x2", "--rows", "0"], "--rows is 0; it must be at least 1"),
        (
            ["--cluster", "cpu=1x2", "--stages", "decode", "decode"],
            "expected each stage at most once",
        ),
        (["--cluster", "cpu=1x2"], "a calibration takes at least 20 samples"),
    ],
)
def test_wrong_use_ends_with_a_sentence_before_any_run(
    workspace: Workspace, flags: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(workspace, *flags) == 2
    assert message in capsys.readouterr().err


def test_calibration_takes_samples_of_the_catalog_and_always_the_same(
    workspace: Workspace,
) -> None:
    fill(workspace, 30)
    fill(workspace, 30, "live")
    ids = random_ids(workspace, 25)
    assert len({*ids}) == 25 and all(name.startswith("catalog") for name in ids)
    assert random_ids(workspace, 25) == ids
    assert len(random_ids(workspace, 400)) == 30


def test_part_of_a_workspace_holds_what_the_stages_read_and_is_deleted(
    workspace: Workspace,
) -> None:
    fill(workspace, 30)
    frames = [{"sample_id": f"catalog{i}", "fingerprint": "f", "frames": [b"x"]} for i in range(30)]
    workspace.table(FRAMES).append(frames)
    with part_of(workspace, ["catalog3", "catalog7"], ["transcribe"], SETTINGS) as part:
        assert part.table(SAMPLES).count() == part.table(FRAMES).count() == 2
    with part_of(workspace, ["catalog3", "catalog7"], ["decode"], SETTINGS) as part:
        assert part.table(SAMPLES).count() == 2
        assert part.table(FRAMES).dataset() is None
    assert not Workspace.exists(part.uri)
    assert workspace.table(SAMPLES).count() == workspace.table(FRAMES).count() == 30


def test_part_of_a_workspace_is_deleted_after_an_error_and_after_a_killed_job(
    workspace: Workspace,
) -> None:
    fill(workspace, 30)
    Workspace.create(f"{workspace.uri}/calibration").table(FRAMES).append(
        [{"sample_id": "left", "fingerprint": "f", "frames": [b"x"]}]
    )
    with part_of(workspace, ["catalog3"], ["decode"], SETTINGS) as part:
        assert part.table(FRAMES).dataset() is None
    with pytest.raises(KeyError), part_of(workspace, ["catalog3"], ["decode"], SETTINGS):
        raise KeyError
    assert not Path(part.uri).exists()


def calibrated(steady_s: float = 15.0) -> Calibration:
    """Decode measured on two workers: 7 s to start, and 0.1 s a row."""
    run = Measured(
        samples=400,
        rows=400,
        first_rows=100,
        first_s=12.0,
        work_s=12.0 + steady_s,
        seconds=27.0,
        workers=2,
    )
    return Calibration(
        samples=400,
        runs={"decode": [run]},
        costs={"decode": fit(run)},
        table_bytes={"samples": 100.0, "frames": 100_000.0},
        reasons={"embed": "embed.gpus is 1 and Ray has 0 GPUs here"},
    )


def test_plan_says_what_is_measured_what_is_assumed_and_what_is_not_predictable() -> None:
    """3,200,000 rows of 0.1 s on 32 workers take 10,000 s, and 7 s to start."""
    calibration = calibrated()
    predicted = predict(calibration, SETTINGS, 3_200_000, SHAPE, {"cpu": 0.9})
    shown = format_plan(3_200_000, SHAPE, calibration, predicted)
    assert "plan for 3,200,000 samples on 4 cpu of 8 cores" in shown
    row = next(line for line in shown.splitlines() if line.startswith("decode "))
    assert row.split() == ["decode", "3,200,000", "32", "7.0", "s", "319.8", "2", "h", "46", "min",
                           "0.0", "10.01"]  # fmt: skip
    assert "bottleneck: decode, 100% of the time, limited by cores of cpu" in shown
    assert "tables: 320.3 GB (samples 320.0 MB, frames 320.0 GB)" in shown
    assert "measured: decode: 400 rows in 27.0 s on 2 workers here, the first 100 after" in shown
    assert "7.0 s to start and end, 10.00 rows/s per worker" in shown
    assert "assumed: time per row stays as it is with more rows" in shown
    assert "not predictable: embed: embed.gpus is 1 and Ray has 0 GPUs here" in shown


def test_no_price_gives_no_cost() -> None:
    calibration = calibrated()
    predicted = predict(calibration, SETTINGS, 1_000, SHAPE, {})
    assert "cost" not in format_plan(1_000, SHAPE, calibration, predicted)


def test_doubtful_predictions_are_warned_of() -> None:
    calibration, shape = calibrated(steady_s=1.0), parse_shape("cpu=100x8")
    predicted = predict(calibration, SETTINGS, 10_000_000, shape, {})
    content = json.loads(plan_json(10_000_000, shape, {}, calibration, predicted))
    assert "only 1.0 s passed" in content["warnings"][0]
    assert "one driver was measured to commit" in content["warnings"][1]


@pytest.mark.e2e
@pytest.mark.nightly
def test_decode_and_embed_of_a_real_catalog_are_measured_and_predicted(
    prepared: Workspace,
) -> None:
    flags = ["--preset", "demo+zero-shot", "--rows", "5000", "--cluster", "head=1x0,cpu=4x8",
             "--prices", "cpu=1", "head=0.5", "--embed.workers", "1:16", "--json"]  # fmt: skip
    job = subprocess.run(command("plan", prepared, flags), capture_output=True, check=False)
    assert job.returncode == 0, (job.stdout + job.stderr).decode()
    content = json.loads(job.stdout)
    decode, embed = content["predicted"]["stages"]
    assert (decode["stage"], decode["workers"], decode["rows"]) == ("decode", 32, 5000)
    assert (embed["stage"], embed["workers"], embed["limit"]) == ("embed", 16, "--embed.workers")
    total = content["predicted"]["seconds"]
    assert total == pytest.approx(decode["seconds"] + embed["seconds"])
    hours = decode["seconds"] * 4 + embed["seconds"] * 2 + total * 0.5
    assert content["predicted"]["cost"] == pytest.approx(hours / 3600)
    assert content["not_predictable"] == {}
    sizes = content["predicted"]["table_bytes"]
    assert sizes["frames"] > sizes["samples"] > 0
    assert prepared.table(FRAMES).dataset() is None, "the workspace itself is as it was"
    assert not (Path(prepared.uri) / "calibration").exists()
