"""`ampere run`: which stages run, how it ends, and its page."""

import json
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from ampere import commands
from ampere.cli import main
from ampere.commands.base import ReportingCommand
from ampere.config.index import IndexSettings
from ampere.config.systems import named_settings
from ampere.config.transcribe import TranscribeSettings
from ampere.media.decoder import MediaError
from ampere.models.model_folder import embedding_name
from ampere.pipeline.index import build_index
from ampere.pipeline.runner.report import Report
from ampere.records import FAILURES, SAMPLES, TRANSCRIPTS
from ampere.reports.failure_changes import failed_rows, failure_changes
from ampere.reports.run_page import duration, history
from ampere.reports.score_drift import Answer, compare, measure_drift
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace
from ampere.workflows.nightly_run import run_night
from ampere.workflows.run import needs
from ampere.workflows.run.budget import UNSAFE_S, TimeBudget, TimeIsUp, is_safe
from ampere.workflows.run.steps import Outcome, Step, run_steps
from ampere.workflows.run.summary import left_lines
from tests.helpers.embeddings import write_embeddings
from tests.helpers.search_tables import unit_vectors
from tests.helpers.workspaces import embedding_model, manifest, row

SETTINGS = named_settings("small+zero-shot")
NO_BUDGET = TimeBudget(None)


@pytest.fixture(autouse=True)
def speech(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """What is missing to transcribe, under `missing`; None: nothing."""
    state: dict[str, str | None] = {"missing": "the speech model small is not on this machine"}
    module = ModuleType("checks")

    def missing_engine(settings: TranscribeSettings) -> str | None:
        return state["missing"]

    module.missing_engine = missing_engine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ampere.text.speech_engines.checks", module)
    return state


def step(stage: str, report: Report | None = None, skipped: str = "") -> Step:
    return Step(stage, lambda: report or Report(stage, "here", done=2), lambda: skipped)


def failing(stage: str, error: Exception) -> Step:
    def work() -> Report:
        raise error

    return Step(stage, work)


def states(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.stage: outcome.state for outcome in outcomes}


def test_stages_run_in_order_and_print_their_reports(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [step("decode"), step("train", skipped="no need"), step("index")]
    outcomes = run_steps(steps, NO_BUDGET)
    assert states(outcomes) == {"decode": "done", "train": "skipped", "index": "done"}
    assert all(outcome.succeeded for outcome in outcomes) and left_lines(outcomes) == []
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("decode: 2 rows done")
    assert shown[1] == "train: skipped: no need" and shown[2].startswith("index: 2 rows done")


@pytest.mark.parametrize("error", [RuntimeError("Ray died"), MediaError("bad"), KeyError("a")])
def test_stage_that_raises_ends_the_run(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = run_steps([step("decode"), failing("embed", error), step("index")], NO_BUDGET)
    assert states(outcomes) == {"decode": "done", "embed": "failed", "index": "not run"}
    left = left_lines(outcomes)
    assert left[0].startswith("embed: failed: ") and left[1] == "not run: index"
    # A fault of the program is shown with its traceback.
    assert ("Traceback" in capsys.readouterr().err) == isinstance(error, KeyError)


def test_unsuccessful_report_does_not_end_the_run() -> None:
    all_failed = Report("decode", "here", failed=Counter(MissingMedia=3))
    outcomes = run_steps([step("decode", all_failed), step("index")], NO_BUDGET)
    assert states(outcomes) == {"decode": "done", "index": "done"}
    assert left_lines(outcomes) == ["decode: its report has the reasons"]


def test_impossible_stage_stops_the_run_before_the_work_of_others() -> None:
    impossible = Step("train", lambda: Report("train", ""), str, lambda: "no products")
    outcomes = run_steps([step("prepare"), step("decode"), impossible], NO_BUDGET)
    assert states(outcomes) == {"prepare": "done", "decode": "not run", "train": "failed"}


def waits(stage: str) -> Step:
    """A stage that takes until something raises in the main thread."""

    def work() -> Report:
        assert threading.Event().wait(60), "the alarm did not come"
        raise AssertionError

    return Step(stage, work)


def test_budget_ends_the_running_stage_and_the_index_is_updated() -> None:
    ended = []
    before = signal.getsignal(signal.SIGALRM)
    with TimeBudget(1e-4) as budget:
        outcomes = run_steps(
            [step("prepare"), waits("decode"), step("embed"), step("index"), step("evaluate")],
            budget,
            lambda: ended.append("ray"),
        )
    assert states(outcomes) == {
        "prepare": "done",
        "decode": "ended",
        "embed": "not run",
        "index": "done",
        "evaluate": "not run",
    }
    assert ended == ["ray"] and signal.getsignal(signal.SIGALRM) is before
    assert "ended by the time budget of 0.0001 minutes" in left_lines(outcomes)[0]


def test_index_without_embeddings_after_the_budget_is_not_run() -> None:
    with TimeBudget(1e-4) as budget:
        missing = failing("index", ValueError("no embeddings"))
        outcomes = run_steps([waits("embed"), missing], budget, lambda: None)
    assert states(outcomes) == {"embed": "ended", "index": "not run"}


def frame(file: str, function: str, back: object = None) -> Any:
    return SimpleNamespace(f_code=SimpleNamespace(co_filename=file, co_name=function), f_back=back)


RAY_START = frame("/x/ray/_private/worker.py", "init")


@pytest.mark.parametrize(
    ("interrupted", "safe"),
    [
        (frame(needs.__file__, "has_model"), True),
        (frame(threading.__file__, "wait"), True),
        (frame("/x/ray/_private/worker.py", "get_objects"), True),
        (frame("/x/lance/dataset.py", "commit"), False),
        (frame("/x/logging/__init__.py", "_releaseLock"), False),
        (frame(threading.__file__, "wait", RAY_START), False),
        (frame(needs.__file__, "<module>", frame("<frozen importlib._bootstrap>", "_load")), False),
        (None, False),
    ],
)
def test_alarm_is_raised_in_our_code_and_in_waits(interrupted: Any, safe: bool) -> None:
    assert is_safe(interrupted) == safe


def test_alarm_in_a_library_comes_again_in_a_moment() -> None:
    alarms: list[tuple[float, float]] = []

    def set_timer(_: int, seconds: float, repeat: float) -> tuple[float, float]:
        alarms.append((seconds, repeat))
        return 7.0, 0.0

    with TimeBudget(2.0, set_timer) as budget:
        signal.raise_signal(signal.SIGALRM)  # no stage is running
        assert budget.is_over and alarms == [(120.0, 30.0)]
        with budget.watched():
            signal.raise_signal(signal.SIGALRM)  # in this file, which is not ampere's
        assert alarms[1:] == [(UNSAFE_S, 30.0)] and not budget.has_raised
    # The alarm that was set before, such as that of pytest, is set again.
    assert alarms[-1] == (7.0, 0.0)


def test_error_that_follows_from_the_alarm_ends_the_stage_too() -> None:
    def work() -> Report:
        try:
            return waits("decode").work()
        except TimeIsUp:
            raise SystemError("returned a result with an exception set") from None

    with TimeBudget(1e-4) as budget:
        outcomes = run_steps([Step("decode", work)], budget, lambda: None)
    assert states(outcomes) == {"decode": "ended"}


def clips(workspace: Workspace, *texts: str | None) -> None:
    workspace.table(SAMPLES).upsert(
        [
            {"sample_id": f"c{n}", "domain": "short", "text": text, "origin": "catalog"}
            for n, text in enumerate(texts)
        ]
    )


def test_transcripts_are_made_of_clips_without_text_if_an_engine_is_at_hand(
    workspace: Workspace, speech: dict[str, str | None]
) -> None:
    workspace.table(SAMPLES).upsert([{"sample_id": "p", "domain": "page"}])
    assert needs.no_transcripts_reason(workspace, SETTINGS, "named") == "the catalog has no clips"
    clips(workspace, "speech")
    assert "every clip" in needs.no_transcripts_reason(workspace, SETTINGS)
    clips(workspace, "speech", None)
    assert "not on this machine" in needs.no_transcripts_reason(workspace, SETTINGS)
    assert needs.no_transcripts_reason(workspace, SETTINGS, "named") == "named"
    speech["missing"] = None
    assert needs.no_transcripts_reason(workspace, SETTINGS) == ""


def test_clips_are_named_unless_they_are_or_were_transcribed(
    workspace: Workspace, speech: dict[str, str | None]
) -> None:
    reason = needs.naming_reason(None, SETTINGS, ["transcribe"])
    assert "not on this machine. Clips have their file names as text" in reason
    assert needs.naming_reason(workspace, SETTINGS, ["transcribe"]) == reason
    assert needs.naming_reason(None, SETTINGS, ["prepare", "decode"]) == ""
    workspace.table(TRANSCRIPTS).upsert([{"sample_id": "c0", "status": "ok", "text": "speech"}])
    assert needs.naming_reason(workspace, SETTINGS, ["transcribe"]) == ""
    speech["missing"] = None
    assert needs.naming_reason(None, SETTINGS, ["transcribe"]) == ""


def test_model_decides_whether_it_is_trained_and_reads_summaries(workspace: Workspace) -> None:
    demo = named_settings("demo")
    assert "reads no summaries" in needs.no_summaries_reason(workspace, SETTINGS)
    assert needs.no_summaries_reason(workspace, demo) == ""
    assert needs.summaries_read(workspace, named_settings("demo+keybert")).method == "keybert"
    assert "needs no training" in needs.no_training_reason(workspace, SETTINGS, is_asked=True)
    assert needs.no_training_reason(workspace, demo, is_asked=False) == ""
    embedding_model(workspace, "ampere")  # which reads raw transcripts
    assert "--from train" in needs.no_training_reason(workspace, demo, is_asked=False)
    assert needs.no_training_reason(workspace, demo, is_asked=True) == ""
    assert "its text is raw" in needs.no_summaries_reason(workspace, demo)


def test_page_has_the_stages_failures_and_the_runs_before(workspace: Workspace) -> None:
    workspace.table(FAILURES).create()
    clips(workspace, "a")

    def fail(sample: str) -> Callable[[], Report]:
        def work() -> Report:
            failure = {"stage": "decode", "sample_id": sample, "attempts": 1}
            error = {"error_type": "MissingMedia", "message": f"<no file> of {sample}"}
            workspace.table(FAILURES).upsert([failure | error])
            return Report("decode", "", done=5, failed=Counter(MissingMedia=1))

        return work

    settings = named_settings("demo")
    assert run_night(workspace, settings, [Step("decode", fail("a"))], NO_BUDGET, 36.0) == 0
    assert run_night(workspace, settings, [Step("decode", fail("b"))], NO_BUDGET) == 0
    embed = failing("embed", ValueError("no frames"))
    assert run_night(workspace, settings, [embed], NO_BUDGET) == 1
    last, second, first = history(workspace)
    assert [run["failures"]["new_count"] for run in (first, second, last)] == [1, 1, 0]
    assert [run["failures"]["repeated_count"] for run in (first, second, last)] == [0, 1, 2]
    assert first["cost"] == pytest.approx(first["seconds"] / 100) and second["cost"] is None
    assert (last["status"], last["stages"][0]["state"]) == (1, "failed")
    page = workspace.read_report("run.html") or ""
    assert "embed: failed: no frames" in page and "not complete" in page
    assert "&lt;no file&gt; of a" in page and "http" not in page.replace("http-equiv", "")
    assert json.loads(workspace.read_report("run.json") or "") == last


def test_history_is_of_the_last_runs_and_passes_damaged_files_over(workspace: Workspace) -> None:
    run = {"seconds": 1.0, "totals": {}}
    for day in range(1, 32):
        workspace.write_report(f"runs/2026-10-{day:02}.json", json.dumps(run | {"started": day}))
    workspace.write_report("runs/2026-11-01.json", "{")
    assert [run["started"] for run in history(workspace)] == list(range(31, 2, -1))


def test_failures_are_new_repeated_or_repaired() -> None:
    before = {("decode", "a"): ("Timeout", "slow"), ("decode", "b"): ("Timeout", "slow")}
    now = {("decode", "b"): ("Timeout", "slow"), ("embed", "b"): ("Other", "x" * 999)}
    changes = failure_changes(before, now)
    assert [(reason.stage, reason.count) for reason in changes.new] == [("embed", 1)]
    assert [reason.examples for reason in changes.repeated] == [(("b", "slow"),)]
    assert changes.repaired == 1 and len(changes.new[0].examples[0][1]) == 300


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (3.04, 119.6, 3661)] == ["3.0 s", "2 min 00 s", "1 h 01 min"]


def test_drift_compares_the_samples_that_both_runs_asked() -> None:
    before = {"a": Answer(("b", "c"), 0.9), "gone": Answer(("a",), 0.1)}
    now = {"a": Answer(("b", "d"), 0.7), "new": Answer((), 0.0)}
    drift = compare(now, before, "m@2", "m@1")
    assert (drift.asked, drift.compared, drift.overlap) == (2, 1, 0.5)
    assert drift.similarity_change == pytest.approx(-0.2)
    assert "the model changed from m@1 to m@2" in str(drift)
    assert "for the first time" in str(compare(now, {}, "m@2", ""))


def test_drift_of_an_index_follows_its_vectors(workspace: Workspace) -> None:
    embedding_model(workspace, "m")
    name = embedding_name(model_folder(workspace, "m"))
    settings = IndexSettings(model="m")

    def index(seed: int) -> None:
        rows = [
            {"sample_id": f"s{n}", "domain": "page", "vector": vector}
            | {"fingerprint": f"{100 * seed + n:016x}"}
            for n, vector in enumerate(unit_vectors(40, seed))
        ]
        write_embeddings(workspace, name, rows)
        build_index(workspace, settings)

    index(0)
    first = measure_drift(workspace, settings)
    assert (first.asked, first.compared) == (40, 0)
    same = measure_drift(workspace, settings)
    assert (same.compared, same.overlap, same.similarity_change) == (40, 1.0, 0.0)
    index(1)
    other = measure_drift(workspace, settings)
    assert other.compared == 40 and other.overlap < 0.6 and other.model_before == other.model


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three pictures of one color each."""
    folder = tmp_path / "media" / "fruit"
    folder.mkdir(parents=True)
    for name, color in (("red", (200, 20, 20)), ("green", (20, 200, 20)), ("blue", (0, 0, 220))):
        Image.new("RGB", (64, 48), color).save(folder / f"{name}_apple.jpg")
    return folder.parent


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages after `prepare` whose work was done; they do nothing else."""
    names: list[str] = []
    for command in (commands.Decode, commands.Summarize, commands.Train, commands.Embed):

        def work(self: ReportingCommand) -> Report:
            names.append(self.name)
            return Report(self.name, "", done=1)

        monkeypatch.setattr(command, "work", work)
    monkeypatch.setattr(commands.Embed, "save_untrained", lambda *_: None)
    return names


def test_folder_of_a_new_workspace_is_searched_without_training(
    pictures: Path, tmp_path: Path, worked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "clip.mp4").touch()
    flags = ["--workspace", str(tmp_path / "w"), "--until", "embed"]
    assert main(["run", "--media-folder", str(pictures), *flags]) == 0
    workspace = Workspace.open(tmp_path / "w")
    assert workspace.preset == "small+zero-shot" and worked == ["decode", "embed"]
    texts = workspace.table(SAMPLES).read(["sample_id", "text"]).to_pylist()
    assert {"sample_id": "clip.mp4", "text": "clip"} in texts
    shown = capsys.readouterr().out
    assert "transcribe: skipped: the speech model small is not on this machine. Clips" in shown
    assert "summarize: skipped: the model zero-shot reads no summaries" in shown
    assert "train: skipped: the model zero-shot needs no training" in shown
    assert f"Report: {workspace.uri}/reports/run.html" in shown
    # Without a catalog the next run only does what is left.
    assert main(["run", *flags]) == 0
    shown = capsys.readouterr().out
    assert "prepare: skipped: no catalog is given" in shown
    assert "transcribe: skipped: every clip of the catalog has a text" in shown


def test_folder_with_a_preset_that_trains_is_refused_first(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["run", "--media-folder", str(pictures), "--workspace", str(tmp_path / "w")]
    assert main([*flags, "--preset", "small"]) == 2
    message = "cannot train the model ampere: a media folder names no products. Give --preset"
    assert message in capsys.readouterr().err and not (tmp_path / "w").exists()


def test_catalog_without_products_is_refused_before_its_media_are_read(
    tmp_path: Path, worked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    table = manifest(tmp_path / "m.csv", row("a", product=""), row("b", product=""))
    flags = ["run", "--manifest", str(table), "--workspace", str(tmp_path / "w")]
    assert main(flags) == 1
    shown = capsys.readouterr().out
    assert "train: failed: cannot train the model ampere: no sample has a product_id" in shown
    assert worked == [] and "left: not run: decode, transcribe" in shown
    # The untrained model needs no products, and the workspace takes the preset over.
    assert main([*flags, "--preset", "small+zero-shot", "--until", "embed"]) == 0
    assert worked == ["decode", "embed"]
    assert Workspace.open(tmp_path / "w").preset == "small+zero-shot"


def test_night_trains_no_model_that_is_there_unless_it_begins_with_it(
    workspace: Workspace, worked: list[str]
) -> None:
    sample = {"domain": "short", "text": "t", "split": "train", "product_id": "p"}
    workspace.table(SAMPLES).upsert([{"sample_id": "a"} | sample])
    flags = ["run", "--workspace", workspace.uri, "--until", "embed"]
    assert main(flags) == 0
    assert worked == ["decode", "summarize", "train", "embed"]
    embedding_model(workspace, "ampere")
    worked.clear()
    assert main(flags) == 0
    assert worked == ["decode", "embed"]  # this model reads raw transcripts
    worked.clear()
    assert main([*flags, "--from", "train"]) == 0
    assert worked == ["train", "embed"]


def test_second_run_fails_at_once_and_changes_nothing(
    workspace: Workspace, pictures: Path, worked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["run", "--workspace", workspace.uri, "--media-folder", str(pictures)]
    with workspace.lock("run"):
        assert main([*flags, "--preset", "small+zero-shot", "--until", "decode"]) == 1
    assert "another `ampere run` is working in" in capsys.readouterr().err
    assert not worked and not workspace.table(SAMPLES).count()
    assert Workspace.open(workspace.uri).preset == "demo" and not history(workspace)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--from", "embed", "--until", "decode"], "--from embed comes after --until decode"),
        (["--budget-minutes", "0"], "--budget-minutes is 0.0; it must be above 0"),
        (["--hourly-price", "-1"], "--hourly-price is -1.0; it must not be negative"),
        (["--only-retryable"], "--only-retryable requires --retry-failed"),
    ],
)
def test_invalid_flags_stop_before_any_work(
    flags: list[str], message: str, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--workspace", workspace.uri, *flags])
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_failures_of_the_table_are_read_by_stage_and_sample(workspace: Workspace) -> None:
    assert failed_rows(workspace) == {}
    failure = {"stage": "decode", "sample_id": "a", "error_type": "Timeout", "message": None}
    workspace.table(FAILURES).upsert([failure])
    assert failed_rows(workspace) == {("decode", "a"): ("Timeout", "")}


@pytest.mark.nightly
@pytest.mark.usefixtures("local_ray")
def test_budget_ends_a_wait_for_ray() -> None:
    """As a training is one; in a signal handler `ray.get` passes on a KeyboardInterrupt alone."""
    import ray

    @ray.remote(num_cpus=0)
    def forever() -> None:
        threading.Event().wait()

    tasks: list[Any] = []

    def work() -> Report:
        tasks.append(forever.remote())
        ray.get(tasks)
        raise AssertionError

    with TimeBudget(0.01) as budget:
        outcomes = run_steps(
            [Step("train", work)], budget, lambda: ray.cancel(tasks[0], force=True)
        )
    assert states(outcomes) == {"train": "ended"}


@pytest.mark.nightly
@pytest.mark.usefixtures("local_ray")
def test_folder_to_search_in_two_commands(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = ["--workspace", str(tmp_path / "w")]
    assert main(["run", "--media-folder", str(pictures), *workspace]) == 0
    assert "index       done" in capsys.readouterr().out
    query = str(pictures / "fruit" / "green_apple.jpg")
    assert main(["search", "--file", query, *workspace, "--k", "1"]) == 0
    assert "1.000" in (shown := capsys.readouterr().out) and "green_apple.jpg" in shown
    assert main(["search", "--text", "blue apple", *workspace, "--k", "1"]) == 0
    assert "fruit/blue_apple.jpg" in capsys.readouterr().out
