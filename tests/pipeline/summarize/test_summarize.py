"""The summarize stage around its engines: pending rows, known rows, completions to rows."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ampere.config.summarize import SummarizeSettings
from ampere.pipeline.runner.commit import Committer
from ampere.pipeline.runner.engines import helper_tasks
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.summarize import model as model_module
from ampere.pipeline.summarize import stage as stage_module
from ampere.pipeline.summarize.engine import engine_config, engine_size_for
from ampere.pipeline.summarize.engine_rows import (
    FormPrompts,
    ReadCompletions,
    join_pieces,
)
from ampere.pipeline.summarize.extract import ExtractBatch, extractor_identity
from ampere.pipeline.summarize.rows import model_name
from ampere.pipeline.summarize.stage import SummarizeStage, input_rows
from ampere.records import FAILURES, SAMPLES, SUMMARIES
from ampere.reports.status import format_status
from ampere.store.transcripts import SampleTexts
from ampere.store.workspace import Workspace
from ampere.text import language_models
from ampere.text.language_models import find_model
from ampere.text.llm_engine import prompt_builder
from ampere.text.summary import NO_PRODUCT, TEXT_VERSION, Status, Summary
from tests.helpers.encoders import write_bert, write_uie
from tests.helpers.quantized import write_quantized

ROWS = [
    ("page", "page", "松石牙刷"),
    ("s1", "short", "这个松石牙刷软毛"),
    ("s2", "live", "  "),
    ("s3", "live", None),
    ("s4", "live", "大家晚上好"),
    ("s5", "short", " 这个松石牙刷软毛\n"),
]
SHIPPED = SummarizeSettings(dtype="float32")
RAW = SummarizeSettings(method="raw")
ORIGIN = {"model": "shipped", "weights": "small_lm@1", "prompt_version": "bare@2"}


@pytest.fixture
def clips(workspace: Workspace) -> Workspace:
    workspace.table(SAMPLES).append([{"sample_id": i, "domain": d, "text": t} for i, d, t in ROWS])
    return workspace


def answered(
    workspace: Workspace, sample_id: str, summary: Summary, settings: SummarizeSettings = SHIPPED
) -> None:
    """Write the row that the engine would write."""
    inputs = SummarizeStage(workspace, settings).inputs().to_pylist()
    (fingerprint,) = (row["fingerprint"] for row in inputs if row["sample_id"] == sample_id)
    columns = {
        "product_name": summary.product_name,
        "product_features": list(summary.product_features),
    }
    more = {"text": summary.text, "status": "ok", "flags": [], "raw_output": summary.to_json()}
    workspace.table(SUMMARIES).append(
        [
            {"sample_id": sample_id, "fingerprint": fingerprint}
            | {"method": settings.method, "model": model_name(settings)}
            | columns
            | more
        ]
    )


def made(workspace: Workspace, method: str, model: str | None = None) -> dict[str, Any]:
    where = pc.field("method") == method
    if model is not None:
        where &= pc.field("model") == model
    rows = workspace.table(SUMMARIES).read(where=where).to_pylist()
    return {row["sample_id"]: row for row in rows}


def test_inputs_are_clips_keyed_by_text(clips: Workspace, tmp_path: Path) -> None:
    rows = input_rows(SampleTexts(clips), ["key"]).to_pylist()
    assert [(row["sample_id"], row["position"], row["length"]) for row in rows] == [
        ("s1", 1, 8), ("s2", 2, 0), ("s3", 3, 0), ("s4", 4, 5), ("s5", 5, 8),
    ]  # fmt: skip
    keys = [row["fingerprint"] for row in rows]
    assert keys[0] == keys[4] and keys[1] == keys[2] and len(set(keys)) == 3
    assert input_rows(SampleTexts(Workspace.create(tmp_path / "new")), ["key"]).num_rows == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "example"},
        {"max_tokens": 99},
        {"piece_tokens": 99},
        {"quantization": "fp8"},
        {"dtype": "bfloat16"},
    ],
)
def test_settings_that_change_completions_make_rows_stale(
    clips: Workspace, changed: dict[str, Any]
) -> None:
    before = SummarizeStage(clips, SHIPPED).inputs()["fingerprint"]
    other = SummarizeSettings(**{"dtype": "float32"} | changed)
    assert (
        SummarizeStage(clips, other).inputs()["fingerprint"].to_pylist()[0] != before.to_pylist()[0]
    )
    same = SummarizeSettings(dtype="float32", workers="1:4", batch_size=9, max_num_seqs=3)
    assert SummarizeStage(clips, same).inputs()["fingerprint"] == before


@pytest.mark.parametrize("settings", [SHIPPED, RAW])
def test_changed_code_makes_rows_stale(
    clips: Workspace, monkeypatch: pytest.MonkeyPatch, settings: SummarizeSettings
) -> None:
    before = SummarizeStage(clips, settings).inputs()["fingerprint"]
    for module in (model_module, stage_module):
        monkeypatch.setattr(module, "TEXT_VERSION", TEXT_VERSION + 1)
    assert SummarizeStage(clips, settings).inputs()["fingerprint"] != before


def test_missing_and_known_transcripts_start_no_engine(clips: Workspace) -> None:
    clips.table(SAMPLES).delete(pc.field("sample_id") == "s4")
    answered(clips, "s1", Summary(product_name="松石牙刷", product_features=("软毛",)))
    report = run_stage(SummarizeStage(clips, SHIPPED), clips)
    rows = made(clips, "llm")
    assert {name: (row["status"], row["text"]) for name, row in rows.items()} == {
        "s1": ("ok", "松石牙刷 软毛"),
        "s2": ("missing", None),
        "s3": ("missing", None),
        "s5": ("ok", "松石牙刷 软毛"),
    }
    assert (report.done, report.skipped) == (3, 1)
    assert (
        "summaries: 2 with a product, 0 without one in the transcript (status empty), "
        "2 clips without a transcript"
    ) in str(report)


def test_rows_that_need_no_engine_are_committed_in_chunks(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of a large catalog at once would not fit into memory."""
    workspace.table(SAMPLES).append(
        [
            {
                "sample_id": f"s{i:02}",
                "domain": "live",
                "text": "这个松石牙刷软毛" if i % 2 else None,
            }
            for i in range(20)
        ]
    )
    answered(workspace, "s01", Summary(product_name="松石牙刷", product_features=("软毛",)))
    monkeypatch.setattr("ampere.pipeline.summarize.stage.ROWS_PER_COMMIT", 6)
    commits, commit = [], Committer.commit

    def commit_three(self: Committer, batch: pa.Table) -> None:
        if len(commits) == 3:
            raise RuntimeError("disk full")
        commits.append(batch.num_rows)
        commit(self, batch)

    monkeypatch.setattr(Committer, "commit", commit_three)
    with pytest.raises(RuntimeError, match="disk full"):
        run_stage(SummarizeStage(workspace, SHIPPED), workspace)
    assert commits == [6, 4, 6]
    monkeypatch.setattr(Committer, "commit", commit)
    assert run_stage(SummarizeStage(workspace, SHIPPED), workspace).done == 3


def test_summaries_of_two_language_models_stand_side_by_side(
    clips: Workspace, tmp_path: Path
) -> None:
    clips.table(SAMPLES).delete(pc.field("sample_id") == "s4")
    other = SummarizeSettings(dtype="float32", model=str(tmp_path / "other"))
    shutil.copytree(find_model("shipped").source, tmp_path / "other")
    # Other weights: equal ones would share their answers.
    (tmp_path / "other" / "generation_config.json").write_text("{}")
    answered(clips, "s1", Summary(product_name="松石牙刷", product_features=()))
    answered(clips, "s1", Summary(product_name="牙刷", product_features=()), other)
    for settings in (SHIPPED, other):
        assert run_stage(SummarizeStage(clips, settings), clips).done == 3
    texts = {model: made(clips, "llm", model)["s5"]["text"] for model in ("shipped", "other")}
    assert texts == {"shipped": "松石牙刷", "other": "牙刷"}
    # A run of one model leaves the rows of the other alone, also when samples lose their input.
    clips.table(SAMPLES).delete(pc.field("sample_id") == "s5")
    run_stage(SummarizeStage(clips, SHIPPED), clips)
    assert "s5" not in made(clips, "llm", "shipped") and "s5" in made(clips, "llm", "other")


def test_one_model_under_two_names_shares_its_answers(clips: Workspace, tmp_path: Path) -> None:
    clips.table(SAMPLES).delete(pc.field("sample_id") == "s4")
    answered(clips, "s1", Summary(product_name="松石牙刷", product_features=("软毛",)))
    folder = tmp_path / "small_lm"
    shutil.copytree(find_model("shipped").source, folder)
    same = SummarizeSettings(dtype="float32", model=str(folder), prompt="bare")
    assert run_stage(SummarizeStage(clips, same), clips).done == 4  # without an engine
    row = made(clips, "llm", "small_lm")["s5"]
    assert (row["text"], row["model"], row["method"]) == ("松石牙刷 软毛", "small_lm", "llm")


@pytest.mark.usefixtures("local_ray")
def test_raw_transcripts_as_rows(clips: Workspace) -> None:
    report = run_stage(SummarizeStage(clips, RAW), clips)
    texts = {name: (row["status"], row["text"]) for name, row in made(clips, "raw").items()}
    assert texts == {
        "s1": ("ok", "这个松石牙刷软毛"),
        "s2": ("missing", None),
        "s3": ("missing", None),
        "s4": ("ok", "大家晚上好"),
        "s5": ("ok", "这个松石牙刷软毛"),
    }
    assert report.done == 5 and run_stage(SummarizeStage(clips, RAW), clips).skipped == 5
    clips.write_report("summarize-raw-settings.json", json.dumps(vars(RAW)))
    from ampere.config.presets import PRESETS

    lines = {
        line.split()[0]: line.split()[1:]
        for line in format_status(clips, PRESETS["demo"]()).splitlines()
        if line
    }
    assert lines["summarize-raw"] == ["5", "0", "0", "0"] and lines["summarize"] == [
        "0",
        "5",
        "0",
        "0",
    ]


@pytest.mark.parametrize("method", ["keybert", "uie"])
def test_extract_actor_writes_rows_of_its_method(
    clips: Workspace, tmp_path: Path, method: Any
) -> None:
    folder = str((write_bert if method == "keybert" else write_uie)(tmp_path / "model"))
    settings = SummarizeSettings(method=method, encoder=folder, extractor=folder)
    texts = SampleTexts(clips)
    rows = SummarizeStage(clips, settings).inputs().slice(0, 1)
    actor = ExtractBatch(settings, extractor_identity(settings), texts)
    (row,) = actor(rows).to_pylist()
    assert (
        row["method"] == method and row["status"] in ("ok", "empty") and row["error_type"] is None
    )
    assert row["model"] == "model"  # its folder's name
    assert row["weights"].startswith("model@") and len(row["weights"]) == len("model@") + 12
    broken = rows.set_column(2, "position", pa.array([3]))  # null instead of a transcript
    assert actor(broken).to_pylist()[0]["error_type"]
    actor.summarizer = lambda text: {
        "product_name": None,
        "product_features": ["松石牙刷", "不打农药"],
    }
    assert actor(rows).to_pylist()[0]["flags"] == ["unsupported: 不打农药"]


def unreadable(workspace: Workspace) -> tuple[Any, pa.Table]:
    """Two clips whose transcripts hold nothing to read, and one with a product."""
    texts = [
        ("u1", "\u200b\x00\ufeff"),
        ("u2", "<|im_end|>"),
        ("u3", "家人们看过来，这款松石牙刷，不伤牙龈"),
    ]
    workspace.table(SAMPLES).append(
        [{"sample_id": i, "domain": "live", "text": t} for i, t in texts]
    )
    return SampleTexts(workspace), SummarizeStage(workspace, SHIPPED).inputs()


def test_unreadable_transcripts_are_missing_without_an_engine(workspace: Workspace) -> None:
    texts, rows = unreadable(workspace)
    stage = SummarizeStage(workspace, SHIPPED)
    results, remaining = stage.without_work(rows)
    missing = [row for batch in results for row in batch.to_pylist()]
    assert [(row["sample_id"], row["method"], row["status"], row["text"]) for row in missing] == [
        ("u1", "llm", "missing", None),
        ("u2", "llm", "missing", None),
    ]
    assert remaining["sample_id"].to_pylist() == ["u3"]
    raw = ExtractBatch(RAW, None, texts)(rows.slice(0, 1)).to_pylist()
    assert [(row["method"], row["status"], row["model"]) for row in raw] == [("raw", "missing", "")]
    size = engine_size_for(rows.slice(0, 2), SHIPPED, texts)
    assert size.max_num_seqs >= 1  # no prompt at all, and yet a size


def test_samples_with_one_unreadable_transcript_are_all_missing(workspace: Workspace) -> None:
    rows = [{"sample_id": f"u{i}", "domain": "live", "text": "<|im_end|>"} for i in range(3)]
    workspace.table(SAMPLES).append(rows)
    assert run_stage(SummarizeStage(workspace, SHIPPED), workspace).done == 3
    assert {row["status"] for row in made(workspace, "llm").values()} == {"missing"}


@pytest.mark.nightly  # an engine of its own; `make test` checks the names of quantizations
@pytest.mark.usefixtures("local_ray")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_engine_with_quantized_weights(workspace: Workspace, tmp_path: Path) -> None:
    """A real engine. The model's folder says how its weights are stored."""
    unreadable(workspace)
    model = str(write_quantized(tmp_path / "eight-bits"))
    # With 8-bit weights the kernels of some processors take no float32.
    settings = SummarizeSettings(dtype="bfloat16", model=model, prompt="bare")
    report = run_stage(SummarizeStage(workspace, settings), workspace)
    rows = made(workspace, "llm")
    assert (report.done, rows["u1"]["status"], rows["u2"]["status"]) == (3, "missing", "missing")
    assert rows["u3"]["product_name"] == "松石牙刷" and rows["u3"]["model"] == "eight-bits"
    assert rows["u3"]["weights"].startswith("eight-bits@")


def test_failed_prompt_fails_its_own_row(clips: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = SampleTexts(clips)
    rows = SummarizeStage(clips, SHIPPED).inputs().take([0, 3])
    actor = FormPrompts(SHIPPED, texts)
    prompts = actor.builder.prompts
    monkeypatch.setattr(
        actor.builder, "prompts", lambda text: prompts(text) if "牙刷" in text else [][0]
    )
    first, second = actor(rows).to_pylist()
    assert (first["__inference_error__"], first["transcript"]) == ("", "这个松石牙刷软毛")
    assert second["__inference_error__"] and second["tokenized_prompt"] == []
    batch = completed(("s4", second["piece"], second["pieces"], "", second["__inference_error__"]))
    (row,) = ReadCompletions(SHIPPED, ORIGIN, 1024)(batch).to_pylist()
    assert (row["sample_id"], row["error_type"]) == ("s4", "IndexError")
    assert "out of range" in row["error_message"]
    assert engine_size_for(rows, SHIPPED, texts).max_model_len == 272  # nor does it stop the job


def test_prompts_are_made_from_the_rows_own_transcripts(clips: Workspace) -> None:
    texts = SampleTexts(clips)
    rows = SummarizeStage(clips, SHIPPED).inputs().take([0, 3])
    formed = FormPrompts(SHIPPED, texts)(rows).to_pylist()
    assert [
        (row["sample_id"], row["transcript"], row["piece"], row["pieces"]) for row in formed
    ] == [
        ("s1", "这个松石牙刷软毛", 0, 1),
        ("s4", "大家晚上好", 0, 1),
    ]
    assert (
        prompt_builder(SHIPPED).tokenizer.decode(
            formed[1]["tokenized_prompt"], skip_special_tokens=True
        )
        == "大家晚上好"
    )


def test_engines_are_sized_for_the_pending_transcripts(clips: Workspace) -> None:
    texts = SampleTexts(clips)
    rows = SummarizeStage(clips, SHIPPED).inputs().take([0, 3])
    size = engine_size_for(rows, SHIPPED, texts)
    # 3 tokens of the template, 8 of the longest transcript, 256 of an answer: in blocks of 16
    assert size.max_model_len == 272 and size.max_num_seqs == 256
    named = SummarizeSettings(dtype="float32", max_model_len=600, max_num_seqs=7, kv_cache_gb=0.5)
    size = engine_size_for(rows, named, texts)
    assert (size.max_model_len, size.max_num_seqs, size.kv_cache_bytes) == (600, 7, 2**29)


def test_engine_config() -> None:
    from ray.data import DataContext

    from ampere.text.sizing import EngineSize

    size = EngineSize(512, 100, 2**20)
    pool = SummarizeSettings(
        workers="1:4", batch_size=64, gpus=0.5, cpus=2, accelerator_type="H100", quantization="fp8"
    )
    config = engine_config(pool, EngineSize(512, 100, None), batch_size=None)
    assert (
        config.batch_size == 64
        and config.concurrency == (1, 4)
        and config.accelerator_type == "H100"
    )
    assert config.placement_group_config["bundle_per_worker"] == {"CPU": 2, "GPU": 0.5}
    assert (
        config.engine_kwargs["quantization"] == "fp8"
        and config.engine_kwargs["gpu_memory_utilization"] == 0.45
    )
    assert (
        config.max_concurrent_batches * 64 >= 2 * 100
    )  # the engine never waits for the next batch
    # Otherwise Ray would never let the pool grow.
    threshold = DataContext.get_current().autoscaling_config.actor_pool_util_upscaling_threshold
    assert config.max_tasks_in_flight_per_actor / config.max_concurrent_batches > threshold
    # Without a bound they would keep the cores that a second engine needs.
    helpers = helper_tasks("summarize", pool)
    assert helpers["num_cpus"] == 0.1 and helpers["compute"].size == 4
    isolated = engine_config(SHIPPED, size, batch_size=8)
    assert isolated.batch_size == 8  # or Ray would join blocks of 8 rows to batches of 64
    assert isolated.concurrency == (1, 1) and isolated.max_concurrent_batches == 1
    assert isolated.max_tasks_in_flight_per_actor == 1
    assert (
        isolated.engine_kwargs["kv_cache_memory_bytes"] == 2**20
        and "quantization" not in isolated.engine_kwargs
    )
    spread = engine_config(SummarizeSettings(gpus=1, tensor_parallel_size=2), size, batch_size=None)
    assert spread.engine_kwargs["tensor_parallel_size"] == 2


def test_unknown_quantization_is_refused(clips: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="summarize.quantization is 'fp5'; expected"):
        SummarizeStage(clips, SummarizeSettings(quantization="fp5"))
    assert SummarizeStage(clips, SummarizeSettings(quantization="fp8")).name == "summarize"
    assert (
        SummarizeStage(clips, SummarizeSettings(method="raw", quantization="fp5")).name
        == "summarize-raw"
    )
    # Also a quantization that a preset names.
    monkeypatch.setattr(language_models, "find_spec", {"vllm": find_spec("vllm")}.get)
    with pytest.raises(ValueError, match="requires the package vllm-bnb-plugin"):
        SummarizeStage(clips, SummarizeSettings(model="baichuan2-13b-4bit"))


@pytest.mark.parametrize(("method", "setting"), [("keybert", "encoder"), ("uie", "extractor")])
def test_missing_extractor_is_refused(
    clips: Workspace, tmp_path: Path, method: Any, setting: str
) -> None:
    chosen: dict[str, Any] = {"method": method, setting: "/no/such"}
    with pytest.raises(
        FileNotFoundError, match=f"summarize.{setting} is /no/such: folder not found"
    ):
        SummarizeStage(clips, SummarizeSettings(**chosen))
    with pytest.raises(
        FileNotFoundError, match=f"summarize.{setting} is the folder .* without config.json"
    ):
        SummarizeStage(clips, SummarizeSettings(**chosen | {setting: str(tmp_path)}))
    other = {"encoder": "/no/such", "extractor": "/no/such"} | {setting: "some/model"}
    assert (
        SummarizeStage(clips, SummarizeSettings(**{"method": method} | other)).name
        == f"summarize-{method}"
    )


def completed(*rows: tuple[str, int, int, str, str]) -> dict[str, Any]:
    """The engine's batch for rows of (sample, piece, pieces, completion, error)."""
    tokens = [prompt_builder(SHIPPED).tokenizer.encode(answer) for *_, answer, _ in rows]
    return {
        "sample_id": np.array([row[0] for row in rows]),
        "fingerprint": np.array(["f"] * len(rows)),
        "piece": np.array([row[1] for row in rows]),
        "pieces": np.array([row[2] for row in rows]),
        "transcript": np.array(["这个松石牙刷软毛防水"] * len(rows)),
        "language": np.array(["zh"] * len(rows)),
        "generated_tokens": np.array([*tokens, None], object)[:-1],
        "num_input_tokens": np.array([10] * len(rows)),
        "__inference_error__": np.array([row[4] for row in rows]),
    }


NAME = Summary(product_name="松石牙刷", product_features=("软毛",)).to_json()
MORE = Summary(product_name="松石牙刷", product_features=("防水",)).to_json()


def test_completions_become_result_rows() -> None:
    batch = completed(
        ("a", 0, 1, NAME, ""),
        ("b", 0, 1, NO_PRODUCT.to_json(), ""),
        ("c", 0, 1, "{", ""),
        ("d", 0, 1, "", "boom"),
    )
    rows = {
        row["sample_id"]: row for row in ReadCompletions(SHIPPED, ORIGIN, 1024)(batch).to_pylist()
    }
    assert (
        rows["a"]["text"] == "松石牙刷 软毛"
        and rows["a"]["flags"] == []
        and rows["a"]["language"] == "zh"
    )
    assert {name: rows["a"][name] for name in ORIGIN} == ORIGIN
    assert (rows["a"]["prompt_tokens"], rows["a"]["finish_reason"], rows["a"]["raw_output"]) == (
        10,
        "stop",
        NAME,
    )
    assert (rows["b"]["status"], rows["b"]["text"]) == (Status.EMPTY, None)
    assert (
        rows["c"]["error_type"] == "AnswerError" and "ended by stop" in rows["c"]["error_message"]
    )
    assert rows["d"]["error_type"] == "EngineError" and "boom" in rows["d"]["error_message"]
    assert all(row["piece"] is None for row in rows.values())


def test_completion_at_the_token_limit_is_an_error_that_says_so() -> None:
    short = SummarizeSettings(dtype="float32", max_tokens=3)
    cut = completed(("a", 0, 1, '{"is_product":tr', ""))
    (row,) = ReadCompletions(short, ORIGIN, 1024)(cut).to_pylist()
    assert row["error_type"] == "AnswerError" and "ended by length" in row["error_message"]
    length = 10 + len(cut["generated_tokens"][0])  # of prompt and answer
    named = SummarizeSettings(dtype="float32", max_model_len=600)
    for settings, most, reason in (
        (named, length, "length"),
        (named, length + 1, "stop"),
        (SHIPPED, length + 1, "stop"),
    ):
        (row,) = ReadCompletions(settings, ORIGIN, most)(cut).to_pylist()
        assert row["error_type"] == "AnswerError" and f"ended by {reason}" in row["error_message"]


def test_completion_cut_by_an_engine_sized_for_others_is_retried(clips: Workspace) -> None:
    """The retry sizes the engine for the transcripts that are left."""
    cut = completed(
        ("a", 0, 1, '{"is_product":tr', ""),
        ("b", 0, 2, NAME, ""),
        ("b", 1, 2, '{"is_product":tr', ""),
    )
    length = 10 + len(cut["generated_tokens"][0])
    rows = ReadCompletions(SHIPPED, ORIGIN, length)(cut).to_pylist()
    assert [row["sample_id"] for row in rows] == [
        "a",
        "b",
    ]  # one piece that is cut costs its transcript the first attempt
    for row in rows:
        assert (
            row["error_type"] == "EngineError"
            and f"had room for {length} tokens" in row["error_message"]
        )
    assert "EngineError" in SummarizeStage(clips, SHIPPED).retry.errors
    a, b = ReadCompletions(SHIPPED, ORIGIN, length, is_retry=True)(cut).to_pylist()
    assert a["error_type"] == "EngineError"
    assert b["text"] == "松石牙刷 软毛" and b["flags"][0].startswith(
        "failed piece: 2 of 2: the eng"
    )


def test_pieces_are_joined_in_any_order() -> None:
    together = ReadCompletions(SHIPPED, ORIGIN, 1024)(
        completed(("a", 1, 2, MORE, ""), ("a", 0, 2, NAME, ""))
    )
    (whole,) = together.to_pylist()
    assert (whole["text"], whole["pieces"], whole["piece"]) == ("松石牙刷 软毛 防水", 2, None)
    apart = [
        ReadCompletions(SHIPPED, ORIGIN, 1024)(
            completed(("a", 1, 2, MORE, ""), ("b", 0, 1, NAME, ""))
        )
    ]
    apart.append(ReadCompletions(SHIPPED, ORIGIN, 1024)(completed(("a", 0, 2, NAME, ""))))
    first, second = join_pieces(iter(apart))
    assert first["sample_id"].to_pylist() == ["b"]  # what is whole does not wait
    assert second.to_pylist() == together.drop(["piece"]).to_pylist()


def test_failed_piece_is_retried_then_flagged_and_lost_piece_leaves_its_row_pending() -> None:
    read = ReadCompletions(SHIPPED, ORIGIN, 1024)
    failed = [read(completed(("a", i, 2, NAME, error))) for i, error in enumerate(("", "boom"))]
    _, last = join_pieces(iter(failed))
    assert last["error_type"].to_pylist() == ["EngineError"]
    read = ReadCompletions(SHIPPED, ORIGIN, 1024, is_retry=True)
    again = [read(completed(("a", i, 2, NAME, error))) for i, error in enumerate(("", "boom"))]
    _, last = join_pieces(iter(again))
    assert last["text"].to_pylist() == ["松石牙刷 软毛"]
    assert last["flags"].to_pylist() == [["failed piece: 2 of 2: boom"]]
    assert [table.num_rows for table in join_pieces(iter(failed[:1]))] == [0]


@pytest.mark.parametrize("field", ["product_name", "product_features"])
def test_unpaired_surrogate_fails_its_own_row(field: str) -> None:
    half = {"product_name": "松石牙刷", "product_features": ["软毛"], "is_product": True}
    half[field] = ["\ud83d"] if field == "product_features" else "\ud83d"
    together, alone = (
        completed(("a", 0, 1, json.dumps(half), ""), ("b", 0, 1, NAME, "")),
        json.dumps(half),
    )
    rows = {
        row["sample_id"]: row
        for row in ReadCompletions(SHIPPED, ORIGIN, 1024)(together).to_pylist()
    }
    assert (
        rows["a"]["error_type"] == "AnswerError"
        and "surrogates not allowed" in rows["a"]["error_message"]
    )
    assert rows["b"]["text"] == "松石牙刷 软毛"
    read = ReadCompletions(SHIPPED, ORIGIN, 1024)
    parts = [read(completed(("a", i, 2, answer, ""))) for i, answer in enumerate((NAME, alone))]
    _, last = join_pieces(iter(parts))
    assert last["text"].to_pylist() == ["松石牙刷 软毛"]
    assert "surrogates not allowed" in last["flags"].to_pylist()[0][0]


@pytest.mark.usefixtures("local_ray")
def test_success_clears_an_earlier_failure(clips: Workspace) -> None:
    clips.table(FAILURES).append(
        [{"stage": "summarize-raw", "sample_id": "s1", "fingerprint": "x", "attempts": 1}]
    )
    run_stage(SummarizeStage(clips, RAW), clips, retry_failed=True)
    assert clips.table(FAILURES).count() == 0
