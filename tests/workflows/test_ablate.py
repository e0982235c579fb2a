"""The paper's tables over a workspace: rows are trained once, failed rows have a reason."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.config.embed import EmbedSettings
from ampere.config.evaluate import AblateSettings
from ampere.config.model import ModelSettings
from ampere.config.settings import Settings
from ampere.config.summarize import SummarizeSettings
from ampere.config.systems import SYSTEMS, TABLES, named_settings
from ampere.config.train import TrainSettings
from ampere.models.model_folder import embedding_name
from ampere.pipeline.evaluate import missing_embeddings_note
from ampere.pipeline.runner.report import Report
from ampere.records import SAMPLES, SUMMARIES
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace
from ampere.workflows import ablate
from ampere.workflows.ablate import (
    Row,
    make_rows,
    make_summaries,
    missing_texts,
    run_ablation,
    seeded,
    to_json,
    to_markdown,
    write_rows,
)
from tests.helpers.demo import DemoRun
from tests.helpers.embeddings import write_embeddings
from tests.helpers.workspaces import embedding_model


def test_every_row_of_the_tables_is_a_system() -> None:
    assert {system for table in TABLES.values() for system in table} <= set(SYSTEMS)
    assert list(TABLES) == list(AblateSettings().tables)


@pytest.mark.nightly  # its parts are tested below
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("local_ray")
def test_ablation_of_the_demo_is_complete_and_resumes(
    demo: DemoRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = Workspace.open(shutil.copytree(demo.folder / "workspace", tmp_path / "workspace"))
    monkeypatch.setattr(ablate, "TABLES", {"V": {"visual": 56.9, "uie": 57.8}})
    flags = ["--workspace", workspace.uri, "--ablate.tables", "V", "--train.epochs", "1"]
    assert main(["ablate", *flags]) == 2
    assert "Pass --model.fusion ours" in capsys.readouterr().err
    flags += ["--model.fusion", "ours"]
    flags += ["--summarize.extractor", str(tmp_path / "uie")]
    assert main(["ablate", *flags]) == 0
    first = capsys.readouterr().out
    assert "train: 10 products done" in first
    assert "ablate: uie has no result: FileNotFoundError: summarize.extractor is " in first
    report = json.loads((tmp_path / "workspace" / "reports" / "ablation.json").read_text("utf-8"))
    visual, uie = report["systems"]["visual"], report["systems"]["uie"]
    low, high = visual["interval"]
    assert 0 <= low <= visual["mR1"] <= high <= 100 and visual["paper_on_ROPE"] == {"V": 56.9}
    assert uie["mR1"] is None and "folder not found" in uie["reason"]
    assert "visual-0" in workspace.names("models")
    assert main(["ablate", *flags]) == 0
    again = capsys.readouterr().out
    assert "train: 0 products done" in again
    assert "ablate: 0 trainings done, 1 were done before" in again


def result(**recalls: float) -> dict[str, object]:
    tasks = {
        task: {"R1": recalls.get(task, 0.0)} for task in ("P2S", "P2L", "S2P", "S2L", "L2P", "L2S")
    }
    return {"tasks": tasks, "mR1": sum(recalls.values()) / 6, "chance_mR1": 2.0}


def test_reports_show_means_over_seeds_and_reasons(tmp_path: Path) -> None:
    settings = Settings(ablate=AblateSettings(tables=("XI",), seeds=(0, 1)))
    rows = {system: Row(system, reason="it failed") for system in TABLES["XI"]}
    rows["ampere"] = Row("ampere", (result(P2S=60.0), result(P2S=90.0, L2S=30.0)), (9.5, 21.0))
    lines = to_markdown(rows, settings).splitlines()
    (ampere,) = [line for line in lines if line.startswith("| ampere |")]
    about = SYSTEMS["ampere"].about
    # The standard deviation of 10 and 20 is 7.1.
    recalls = "75.0 | 0.0 | 0.0 | 0.0 | 0.0 | 15.0"
    assert ampere == f"| ampere | {about} | {recalls} | 15.0 ± 7.1 (9.5 to 21.0) | 60.2 |"
    (failed,) = [line for line in lines if line.startswith("| without-page |")]
    header = next(line for line in lines if line.startswith("| system"))
    assert failed.count("|") == ampere.count("|") == header.count("|")
    assert "no result | it failed" in failed
    assert any(line.startswith("| (chance)") and "2.0" in line for line in lines)
    assert "mean of 2 seeds, ± their standard deviation" in lines[2]
    assert "tables V to XI on a tenth" in lines[2]
    report = json.loads(to_json(rows, settings))
    systems = report["systems"]
    assert systems["ampere"]["spread"] == pytest.approx(7.07, abs=0.01)
    assert systems["ampere"]["tasks"]["P2S"] == 75 and systems["without-page"]["mR1"] is None
    assert math.isnan(rows["without-page"].mean())
    assert report["settings"] == json.loads(json.dumps(dataclasses.asdict(settings)))


def test_caption_says_on_what_the_systems_are_trained() -> None:
    rows = {system: Row(system, reason="it failed") for system in TABLES["XI"]}
    plain = Settings(ablate=AblateSettings(tables=("XI",)))
    assert "5 % of the training products are held out" in to_markdown(rows, plain)
    train = TrainSettings(data_share=0.1, validation_share=0.0)
    caption = to_markdown(rows, dataclasses.replace(plain, train=train)).splitlines()[2]
    assert caption.endswith(
        "Here no product is held out, and the last weights are kept; 10 % of the other products "
        "train."
    )


def test_missing_text_table_shows_queries_without_text() -> None:
    settings = Settings(ablate=AblateSettings(tables=("missing-text",), seeds=(0, 1)))
    rows = {system: Row(system, reason="it failed") for system in TABLES["missing-text"]}
    seeds = []
    for mr1 in (10.0, 25.0):
        groups = {"with text": {"mR1": 90.0, "queries": 80}, "without": {"mR1": mr1, "queries": 20}}
        seeds.append(result() | {"groups": {"text": groups}})
    rows["dropout"] = Row("dropout", tuple(seeds))
    rows["ampere"] = Row("ampere", (result() | {"groups": {}},))
    lines = to_markdown(rows, settings).splitlines()
    assert next(line for line in lines if line.startswith("| system")).endswith(
        "| mR1 | mR1 of queries without text |"
    )
    assert next(line for line in lines if line.startswith("| dropout")).endswith("| 17.5 of 20 |")
    assert next(line for line in lines if line.startswith("| ampere")).endswith("| – |")


def test_rice_has_one_task_and_no_number_of_the_paper() -> None:
    settings = Settings(ablate=AblateSettings(tables=("IV",)))
    rows = {system: Row(system, reason="it failed") for system in TABLES["IV"]}
    rows["rice"] = Row("rice", (result(P2S=90.0, L2P=50.0),))
    (line,) = [
        line for line in to_markdown(rows, settings).splitlines() if line.startswith("| rice |")
    ]
    assert line == f"| rice | {SYSTEMS['rice'].about} | – | – | – | – | 50.0 | – | – | – |"
    rice = json.loads(to_json(rows, settings))["systems"]["rice"]
    assert rice["tasks"] == {"L2P": 50} and rice["mR1"] is None
    assert rice["paper_on_ROPE"] == {"IV": None}


TABLE_X = Settings(ablate=AblateSettings(tables=("X",)))  # six systems, per-domain and ampere first


@pytest.fixture
def tested(workspace: Workspace) -> Workspace:
    """A workspace with four test samples: a page, a short and a live of p, and a page of q."""
    rows = [("p-page", "p", "page"), ("p-short", "p", "short"), ("p-live", "p", "live")]
    workspace.table(SAMPLES).append(
        [
            {"sample_id": sample, "product_id": product, "domain": domain, "split": "test"}
            for sample, product, domain in [*rows, ("q-page", "q", "page")]
        ]
    )
    return workspace


def store_embeddings(workspace: Workspace, model: str, ids: list[str]) -> Report:
    """Give all samples of a product the same vector."""
    name = embedding_name(model_folder(workspace, model))
    vectors = {"p": [1.0] + [0.0] * 127, "q": [0.0] * 127 + [1.0]}
    write_embeddings(
        workspace, name, [{"sample_id": sample, "vector": vectors[sample[0]]} for sample in ids]
    )
    return Report("embed", model, done=len(ids))


def test_failed_rows_are_listed_and_the_others_continue(tested: Workspace) -> None:
    """One row fails in training, one in embedding; a row without a vector has a note."""
    before: list[str] = []

    def train(workspace: Workspace, model: ModelSettings, settings: TrainSettings) -> Report:
        before.append(workspace.read_text("reports/ablation.md") or "")
        if settings.name == "per-domain-0":
            raise KeyError("a frame")  # an error that no stage raises on purpose
        embedding_model(workspace, settings.name)
        return Report("train", settings.name, done=7 if settings.name != "visual-0" else 0)

    def embed(workspace: Workspace, settings: EmbedSettings) -> Report:
        if settings.model == "ampere-0":
            raise IndexError("a | vector\nand more")
        ids = ["p-page", "p-short", "p-live", "q-page"]
        return store_embeddings(
            workspace, settings.model, ids[: 3 if "text-0" in settings.model else 4]
        )

    rows = make_rows(tested, TABLE_X, train=train, embed=embed)
    report = write_rows(tested, TABLE_X, rows)
    assert report.succeeded and (report.done, report.skipped) == (4, 1)  # visual was trained before
    assert "ablate: per-domain has no result: KeyError: 'a frame'" in report.notes
    text = tested.read_text("reports/ablation.md") or ""
    assert r"no result | IndexError: a \| vector |" in text
    all_right = " | ".join(["100.0"] * 6)
    assert (
        f"| visual | {SYSTEMS['visual'].about} | {all_right} | 100.0 (100.0 to 100.0) | 56.9 |"
        in text
    )
    note = missing_embeddings_note("text-0", 1, 4)
    assert f"\n- {note}" in text
    systems = json.loads(tested.read_text("reports/ablation.json") or "")["systems"]
    assert systems["text"]["left_out"] == [note] and systems["cope"]["left_out"] == []
    # The report is written after each row: the first two are there before the third is trained.
    assert before[0] == "" and "not made yet" not in text
    assert "KeyError" in before[2] and "IndexError" in before[2] and "not made yet" in before[2]


def test_rows_that_are_the_same_system_are_trained_once(tested: Workspace) -> None:
    trained = []

    def train(workspace: Workspace, model: ModelSettings, settings: TrainSettings) -> Report:
        trained.append(settings.name)
        raise KeyError("a frame")

    settings = Settings(
        model=ModelSettings(missing_text="empty"), ablate=AblateSettings(tables=("missing-text",))
    )
    rows = {row.system: row for row in make_rows(tested, settings, train=train, embed=embed_none)}
    assert trained == ["ampere-0", "dropout-0", "empty-dropout-0"]
    assert rows["empty-text"].reason == "with these settings the same system as ampere"


def embed_none(workspace: Workspace, settings: EmbedSettings) -> Report:
    raise AssertionError("no model was trained, so there is nothing to embed")


def test_tables_without_any_result_fail(tested: Workspace) -> None:
    def train(*_: object) -> Report:
        raise KeyError("a frame")

    rows = make_rows(tested, TABLE_X, train=train, embed=store_embeddings)
    report = write_rows(tested, TABLE_X, rows)
    assert not report.succeeded and "no system has a result" in str(report)


def test_untrained_systems_run_with_one_seed() -> None:
    settings = Settings(ablate=AblateSettings(seeds=(3, 4)))
    assert [run.train.name for run in seeded(settings, "sum")] == ["sum-3", "sum-4"]
    assert [(run.train.name, run.train.epochs) for run in seeded(settings, "mllm-0")] == [
        ("mllm-0-3", 0)
    ]


def test_base_that_is_a_system_is_rejected_first(workspace: Workspace) -> None:
    with pytest.raises(
        ValueError, match=r"model.share_last_layer is False; .* give --preset without a \+SYSTEM"
    ):
        run_ablation(workspace, named_settings("rope+cope"))  # before frames are required


def test_text_source_without_summaries_is_missing(
    workspace: Workspace,
) -> None:
    systems = ["ampere", "keybert", "raw", "visual"]
    rows = [("p", "page", "title"), ("s", "short", None)]
    workspace.table(SAMPLES).upsert(
        [{"sample_id": name, "domain": domain, "text": text} for name, domain, text in rows]
    )
    assert missing_texts(workspace, Settings(), systems) == {}  # no transcript to summarize
    workspace.table(SAMPLES).upsert([{"sample_id": "t", "domain": "live", "text": "speech"}])
    workspace.table(SUMMARIES).upsert(
        [{"sample_id": "t", "method": "llm", "model": "", "text": None}]
    )
    missing = missing_texts(workspace, Settings(), systems)
    assert list(missing) == ["keybert"] and missing["keybert"].startswith(
        "no summaries of method keybert"
    )


def test_summaries_that_systems_need_are_made_once(workspace: Workspace) -> None:
    """Of methods without any; those of a method that has some may be of another model."""
    workspace.table(SUMMARIES).append([{"sample_id": "t", "method": "llm", "model": "qwen"}])
    systems = ["ampere", "llm-name", "keybert", "text-keybert", "uie", "raw", "visual"]
    asked = []

    def summarize(workspace: Workspace, settings: SummarizeSettings) -> Report:
        asked.append(settings.method)
        if settings.method == "uie":
            raise OSError("no such model")
        return Report("summarize", "")

    failed = make_summaries(workspace, Settings(), systems, summarize)
    assert asked == ["keybert", "uie"] and failed == {"uie": "OSError: no such model"}
    workspace.table(SAMPLES).upsert([{"sample_id": "t", "domain": "live", "text": "speech"}])
    missing = missing_texts(workspace, Settings(), systems, failed)
    assert missing["uie"] == "OSError: no such model" and "keybert" in missing


def test_ambiguous_language_models_stop_the_tables_first(workspace: Workspace) -> None:
    workspace.table(SUMMARIES).append(
        [{"sample_id": "t", "method": "llm", "model": model} for model in ("a", "b")]
    )
    with pytest.raises(ValueError, match=r"llm: a, b. Choose one by --train.summary-model"):
        run_ablation(workspace, Settings())


def test_frames_are_required(workspace: Workspace) -> None:
    with pytest.raises(FileNotFoundError, match="no frames in .*; run `ampere decode` first"):
        run_ablation(workspace, Settings())
