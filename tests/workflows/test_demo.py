"""The demo end to end: from a generated catalog to an answer over HTTP, with all real engines."""

import json
import math
import re
from pathlib import Path

import pyarrow.compute as pc
import pytest
from PIL import Image

from ampere.cli import main
from ampere.records import FAILURES, FRAMES, SAMPLES, SUMMARIES, Domain
from ampere.retrieval.metrics import TASKS
from ampere.store.embeddings import embedding_tables, embeddings_spec
from ampere.store.indexes import serving_meta
from ampere.text.checks.scores import score_summaries
from ampere.workflows.demo import summary_scores
from ampere.workflows.evaluate_summaries import read_gold
from tests.helpers.demo import DEMO_PRODUCTS, DemoRun, demo_command
from tests.helpers.embeddings import embeddings_of
from tests.helpers.processes import free_port

pytestmark = pytest.mark.timeout(1200)
SAMPLE_COUNT = 5 * DEMO_PRODUCTS  # a page, two shorts and two lives each
CLIP_COUNT = 4 * DEMO_PRODUCTS
DOMAINS = [[str(domain)] for domain in Domain]  # the first word of a hit's line


def test_every_sample_is_in_every_table_once(demo: DemoRun) -> None:
    samples = demo.workspace.table(SAMPLES).read(["sample_id", "domain"])
    ids = set(samples["sample_id"].to_pylist())
    assert len(ids) == samples.num_rows == SAMPLE_COUNT
    frames = demo.workspace.table(FRAMES).read(["sample_id"])["sample_id"].to_pylist()
    assert sorted(frames) == sorted(ids)
    clips = samples.filter(pc.not_equal(samples["domain"], str(Domain.PAGE)))
    summarized = demo.workspace.table(SUMMARIES).read(["sample_id"])["sample_id"].to_pylist()
    failures = demo.workspace.table(FAILURES).read(["sample_id"], pc.field("stage") == "summarize")
    assert sorted(summarized + failures["sample_id"].to_pylist()) == sorted(
        clips["sample_id"].to_pylist()
    )
    models = embedding_tables(demo.workspace)
    assert len(models) == 3
    for model in models:
        embedded = embeddings_of(demo.workspace, model).read(["sample_id"])["sample_id"]
        assert sorted(embedded.to_pylist()) == sorted(ids)
    assert demo.workspace.table(FAILURES).count(pc.field("stage") != "summarize") == 0


def test_pages_have_one_frame_and_clips_two(demo: DemoRun) -> None:
    columns = ["sample_id", "frames", "timestamps_s"]
    for row in demo.workspace.table(FRAMES).read(columns).to_pylist():
        expected = 1 if f"-{Domain.PAGE}-" in row["sample_id"] else 2
        assert len(row["frames"]) == len(row["timestamps_s"]) == expected
        assert row["timestamps_s"] == sorted(row["timestamps_s"])


def test_vllm_names_products_unseen_in_its_training(demo: DemoRun) -> None:
    truth = read_gold(str(demo.folder / "catalog" / "gold.jsonl"))
    summaries = demo.workspace.table(SUMMARIES).read().to_pylist()
    rows = [row for row in summaries if row["sample_id"] in truth]
    scores = score_summaries([(row, truth[row["sample_id"]]) for row in rows])
    assert scores.count >= 0.9 * CLIP_COUNT
    assert scores.name_accuracy.value >= 0.50
    made = [row for row in rows if row["status"] == "ok"]
    assert {row["model"] for row in made} == {"shipped"}
    assert all(row["weights"].startswith("small_lm@") for row in made)


def test_summaries_of_clips_without_a_transcript_are_missing(demo: DemoRun) -> None:
    texts = demo.workspace.table(SAMPLES).read(["sample_id", "text", "domain"]).to_pylist()
    blank = {row["sample_id"] for row in texts if row["text"] is None}
    summaries = demo.workspace.table(SUMMARIES)
    missing = summaries.read(["sample_id", "text"], pc.field("status") == "missing").to_pylist()
    assert {row["sample_id"] for row in missing} == blank
    assert all(row["text"] is None for row in missing)


def test_six_task_table_is_written_and_printed(demo: DemoRun) -> None:
    report = json.loads((demo.folder / "workspace/reports/evaluation.json").read_text("utf-8"))
    assert list(report["tasks"]) == ["P2S", "P2L", "S2P", "S2L", "L2P", "L2S"]
    recalls = [report["tasks"][task]["R1"] for task in report["tasks"]]
    assert math.isclose(report["mR1"], sum(recalls) / 6)
    assert all(0 <= r["R1"] <= r["R5"] <= r["R10"] <= 100 for r in report["tasks"].values())
    assert report["mR1"] > 2 * report["chance_mR1"]
    assert [row["name"] for row in report["compared"]] == ["ampere-raw", "ampere-visual"]
    assert all(f"\n{name} " in demo.output for name in ("ampere", "ampere-raw", "ampere-visual"))
    low, high = report["mR1_interval"]
    assert low <= report["mR1"] <= high
    queries = sum(task["queries"] for task in report["tasks"].values())
    assert all(
        sum(g["queries"] for g in groups.values()) == queries
        for groups in report["groups"].values()
    )
    assert "with text" in report["groups"]["text"] and len(report["groups"]["category"]) == 10


def test_two_models_are_compared_on_the_same_queries(
    demo: DemoRun, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = demo.workspace
    saved = (demo.folder / "workspace/reports/evaluation.json").read_text("utf-8")
    before = json.loads(saved)
    flags = ["--evaluate.compare", "ampere-raw", "ampere"]
    assert main(["evaluate", "--workspace", workspace.uri, *flags]) == 0
    assert "\nampere over ampere-raw, R@1 in points: mR1 +" in capsys.readouterr().out
    report = json.loads((demo.folder / "workspace/reports/evaluation.json").read_text("utf-8"))
    raw = next(row for row in before["compared"] if row["name"] == "ampere-raw")
    gain = report["comparison"]["mR1"]
    assert gain["difference"] == pytest.approx(before["mR1"] - raw["mR1"])
    assert gain["interval"][0] <= gain["difference"] <= gain["interval"][1]
    workspace.write_report("evaluation.json", saved)  # for the other tests of the demo


def test_figures_are_written_as_one_standalone_page(
    demo: DemoRun, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--figures.models", "ampere", "ampere-visual", "--figures.worst", "3"]
    assert main(["figures", "--workspace", demo.workspace.uri, *flags]) == 0
    shown = capsys.readouterr().out
    assert "figures: 8 figures done" in shown
    assert "figures: no attention maps, since ampere has no X-CLIP as vision tower" in shown
    reports = Path(demo.workspace.uri) / "reports"
    files = list((reports / "figures").iterdir())
    names = ["distances", "recall", *(f"top5-{task}" for task in TASKS)]
    assert sorted(file.stem for file in files) == sorted(names)
    for file in files:
        with Image.open(file) as image:
            assert min(image.size) > 200
    page = (reports / "index.html").read_text("utf-8")
    assert not re.search(r'src="(?!data:)|<link|<script', page)
    assert page.count('<figure class="query">') == 6 * 3 + 3
    assert 'class="right"' in page and "ampere-visual" in page


def test_demo_shows_every_step_with_its_commands(demo: DemoRun) -> None:
    commands = [line.split()[2] for line in demo.output.splitlines() if line.startswith("$ ampere")]
    stages = ["prepare", "decode", "summarize", *["train"] * 3, *["embed"] * 3]
    assert commands == [*stages, "index", "evaluate"]
    steps = [line[:3] for line in demo.output.splitlines() if line[1:3] == "/7"]
    assert steps == [f"{number}/7" for number in range(1, 8)]


def test_demo_searches_over_http_and_prints_results_files_and_next_steps(demo: DemoRun) -> None:
    answer = demo.output[demo.output.index("7/7") :]
    hits = [line.split()[0] for line in answer.splitlines() if line.split()[:1] in DOMAINS]
    assert "$ curl http://127.0.0.1:" in answer and "query: p" in answer
    assert hits == [domain for (domain,) in DOMAINS for _ in range(3)]
    report = json.loads((demo.folder / "workspace/reports/evaluation.json").read_text("utf-8"))
    raw, visual = report["compared"]
    for name, value in (
        ("images and product summaries", report["mR1"]),
        ("images and raw transcripts", raw["mR1"]),
        ("images only", visual["mR1"]),
        ("chance", report["chance_mR1"]),
    ):
        assert re.search(f"\n  {name} +{value:.1f} %", answer), name
    assert f"ampere serve --workspace {demo.workspace.uri}" in answer
    for name in ("models/ampere/model.safetensors", "reports/evaluation.json"):
        assert (demo.folder / "workspace" / name).exists()
    assert serving_meta(demo.workspace, "ampere")["gate"]["page"] >= 0.99


def test_rerun_skips_what_is_done(
    demo: DemoRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first run searched over HTTP; a second start of Serve would take twenty seconds.
    monkeypatch.setattr("ampere.workflows.demo.search_over_http", lambda *_: "")
    versions = table_versions(demo)
    assert main(demo_command(demo.folder, free_port())) == 0
    output = capsys.readouterr().out
    assert f"decode: 0 files done, {SAMPLE_COUNT} were done before" in output
    assert output.count("train: 0 products done") == 3
    assert table_versions(demo) == versions


def table_versions(demo: DemoRun) -> list[int]:
    embeddings = [embeddings_spec(name) for name in embedding_tables(demo.workspace)]
    return [
        demo.workspace.table(spec).dataset().version for spec in (FRAMES, SUMMARIES, *embeddings)
    ]


def test_status_shows_all_stages(demo: DemoRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--workspace", demo.workspace.uri]) == 0
    lines = {
        line.split()[0]: line.split()[1:5]
        for line in capsys.readouterr().out.splitlines()
        if line.strip()
    }
    done = {"decode": SAMPLE_COUNT, "summarize": CLIP_COUNT, "embed-ampere": SAMPLE_COUNT}
    for stage, count in done.items():
        assert lines[stage] == [str(count), "0", "0", "0"]


def test_search_command_ranks_the_query_clip_first(
    demo: DemoRun, capsys: pytest.CaptureFixture[str]
) -> None:
    shorts = demo.workspace.table(SAMPLES).read(
        None, (pc.field("domain") == "short") & (pc.field("split") == "test")
    )
    clip = shorts.to_pylist()[0]
    where = pc.field("sample_id") == clip["sample_id"]
    summary = demo.workspace.table(SUMMARIES).read(["text"], where)["text"][0].as_py()
    flags = ["--file", clip["media_uris"][0], *(["--text", summary] if summary else [])]
    flags += ["--json", "--k", "3", "--workspace", demo.workspace.uri]
    assert main(["search", *flags]) == 0
    hits = json.loads(capsys.readouterr().out)["results"]
    assert hits["short"][0]["sample_id"] == clip["sample_id"]
    assert hits["short"][0]["score"] == pytest.approx(1, abs=1e-4)
    assert len(hits["page"]) == len(hits["live"]) == 3
    picture = ["--file", clip["media_uris"][0], "--json", "--workspace", demo.workspace.uri]
    assert main(["search", *picture]) == 0
    assert json.loads(capsys.readouterr().out)["results"]["page"] != hits["page"]


def test_words_alone_are_searched_and_evaluated(
    demo: DemoRun, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = demo.workspace.table(SAMPLES).read(
        ["text"], (pc.field("domain") == "page") & (pc.field("split") == "test")
    )
    answers = []
    for title in pages["text"].to_pylist()[:2]:
        flags = ["--text", title, "--json", "--k", "3", "--workspace", demo.workspace.uri]
        assert main(["search", *flags]) == 0
        hits = json.loads(capsys.readouterr().out)["results"]
        assert [len(hits[domain]) for domain in Domain] == [3, 3, 3]
        answers.append([hit["sample_id"] for domain in Domain for hit in hits[domain]])
    assert answers[0] != answers[1]
    report = json.loads(demo.workspace.read_report("evaluation.json") or "")
    assert report["alone"].keys() == {"frames", "text"}
    # Each test sample with text asks in two tasks, but for those without an answer.
    groups = report["groups"]["text"].values()
    with_text = report["groups"]["text"]["with text"]["queries"]
    assert report["alone"]["text"]["queries"] == with_text
    assert report["alone"]["frames"]["queries"] == sum(group["queries"] for group in groups)
    assert report["compared"][1]["alone"] == {}  # the model of pictures alone
    words = {mode: scores["mR1"] for mode, scores in report["words"].items()}
    assert words["vector"] == pytest.approx(report["alone"]["text"]["mR1"])
    assert words["hybrid"] > words["vector"]  # why it is the default


def test_summaries_are_scored_for_all_and_for_test_products(demo: DemoRun) -> None:
    text = summary_scores(demo.workspace, demo.folder / "catalog" / "gold.jsonl")
    assert text in demo.output
    assert "summaries of all products: name right" in text
    assert "summaries of test products: name right" in text
