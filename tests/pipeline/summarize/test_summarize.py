"""The summarize stage around its engines: what is due, what is known already, and how answers become rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ampere.config.summarize import SummarizeSettings
from ampere.pipeline.runner.commit import Committer
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.summarize import model as chosen
from ampere.pipeline.summarize import stage as summarize
from ampere.pipeline.summarize.engine import engine_config, sized
from ampere.pipeline.summarize.engine_rows import FormPrompts, ReadAnswers, assembled, missing_row
from ampere.pipeline.summarize.model import asker, chosen_model
from ampere.pipeline.summarize.stage import (
    ExtractBatch,
    extractor_identity,
    summarize_stage,
    wanted_rows,
)
from ampere.records import FAILURES, SAMPLES, SUMMARIES
from ampere.reports.status import format_status
from ampere.store.workspace import Workspace
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
ORIGIN = {"model": "small_lm@1", "prompt_version": "bare@2"}


@pytest.fixture
def clips(workspace: Workspace) -> Workspace:
    workspace.table(SAMPLES).append([{"sample_id": i, "domain": d, "text": t} for i, d, t in ROWS])
    return workspace


def answered(
    workspace: Workspace, sample_id: str, summary: Summary, settings: SummarizeSettings = SHIPPED
) -> None:
    """Write the row that the engine would have made."""
    wanted = summarize_stage(workspace, settings).wanted.to_pylist()
    (print_,) = (row["fingerprint"] for row in wanted if row["sample_id"] == sample_id)
    columns = {
        "product_name": summary.product_name,
        "product_features": list(summary.product_features),
    }
    more = {"text": summary.text, "status": "ok", "flags": [], "raw_output": summary.to_json()}
    workspace.table(SUMMARIES).append(
        [
            {"sample_id": sample_id, "method": settings.method, "fingerprint": print_}
            | columns
            | more
        ]
    )


def made(workspace: Workspace, method: str) -> dict[str, Any]:
    rows = workspace.table(SUMMARIES).read(where=f"method = '{method}'").to_pylist()
    return {row["sample_id"]: row for row in rows}


def test_clips_are_wanted_by_their_text_alone(clips: Workspace) -> None:
    rows = wanted_rows(clips.table(SAMPLES).dataset(), ["key"]).to_pylist()
    assert [(row["sample_id"], row["position"], row["length"]) for row in rows] == [
        ("s1", 1, 8), ("s2", 2, 0), ("s3", 3, 0), ("s4", 4, 5), ("s5", 5, 8),
    ]  # fmt: skip
    prints = [row["fingerprint"] for row in rows]
    assert prints[0] == prints[4] and prints[1] == prints[2] and len(set(prints)) == 3
    assert wanted_rows(None, ["key"]).num_rows == 0


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
def test_what_decides_the_answer_makes_rows_stale(
    clips: Workspace, changed: dict[str, Any]
) -> None:
    before = summarize_stage(clips, SHIPPED).wanted["fingerprint"]
    other = SummarizeSettings(**{"dtype": "float32"} | changed)
    assert (
        summarize_stage(clips, other).wanted["fingerprint"].to_pylist()[0] != before.to_pylist()[0]
    )
    same = SummarizeSettings(dtype="float32", workers="1:4", batch_size=9, max_num_seqs=3)
    assert summarize_stage(clips, same).wanted["fingerprint"] == before


@pytest.mark.parametrize("settings", [SHIPPED, RAW])
def test_changed_code_makes_rows_stale(
    clips: Workspace, monkeypatch: pytest.MonkeyPatch, settings: SummarizeSettings
) -> None:
    before = summarize_stage(clips, settings).wanted["fingerprint"]
    for module in (chosen, summarize):
        monkeypatch.setattr(module, "TEXT_VERSION", TEXT_VERSION + 1)
    assert summarize_stage(clips, settings).wanted["fingerprint"] != before


def test_missing_empty_and_known_are_told_apart_without_an_engine(clips: Workspace) -> None:
    """No engine starts: what is due has no transcript, or one that was summarized under another sample."""
    clips.table(SAMPLES).delete("sample_id = 's4'")
    answered(clips, "s1", Summary(product_name="松石牙刷", product_features=("软毛",)))
    report = run_stage(summarize_stage(clips, SHIPPED), clips)
    rows = made(clips, "llm")
    assert {name: (row["status"], row["text"]) for name, row in rows.items()} == {
        "s1": ("ok", "松石牙刷 软毛"),
        "s2": ("missing", None),
        "s3": ("missing", None),
        "s5": ("ok", "松石牙刷 软毛"),
    }
    assert (report.done, report.skipped) == (3, 1)
    assert (
        "summaries: 2 name a product, 0 transcripts name none (status empty), 2 clips have no"
        in str(report)
    )


def test_what_needs_no_engine_is_committed_in_parts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten million rows all at once would not fit into memory, in this run and in any other."""
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
    monkeypatch.setattr("ampere.pipeline.summarize.stage.SETTLED", 6)
    commits, commit = [], Committer.commit

    def counted(self: Committer, batch: pa.Table) -> None:
        if len(commits) == 3:
            raise RuntimeError("no room")
        commits.append(batch.num_rows)
        commit(self, batch)

    monkeypatch.setattr(Committer, "commit", counted)
    with pytest.raises(RuntimeError, match="no room"):
        run_stage(summarize_stage(workspace, SHIPPED), workspace)
    assert commits == [6, 4, 6]
    monkeypatch.setattr(Committer, "commit", commit)
    assert run_stage(summarize_stage(workspace, SHIPPED), workspace).done == 3


def test_one_answer_serves_three_methods(clips: Workspace) -> None:
    clips.table(SAMPLES).delete("sample_id = 's4'")
    answered(clips, "s1", Summary(product_name="松石牙刷", product_features=("软毛", "防水")))
    for method in ("llm-name", "llm-features"):
        report = run_stage(
            summarize_stage(clips, SummarizeSettings(method=method, dtype="float32")), clips
        )
        assert report.done == 4
    assert [made(clips, m)["s5"]["text"] for m in ("llm-name", "llm-features")] == [
        "松石牙刷",
        "软毛 防水",
    ]
    assert made(clips, "llm")["s1"]["text"] == "松石牙刷 软毛 防水"
    assert made(clips, "llm-name")["s1"]["raw_output"] == made(clips, "llm")["s1"]["raw_output"]


def test_raw_transcripts_as_rows(clips: Workspace) -> None:
    report = run_stage(summarize_stage(clips, RAW), clips)
    texts = {name: (row["status"], row["text"]) for name, row in made(clips, "raw").items()}
    assert texts == {
        "s1": ("ok", "这个松石牙刷软毛"),
        "s2": ("missing", None),
        "s3": ("missing", None),
        "s4": ("ok", "大家晚上好"),
        "s5": ("ok", "这个松石牙刷软毛"),
    }
    assert report.done == 5 and run_stage(summarize_stage(clips, RAW), clips).skipped == 5
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
def test_extracting_actors_write_their_methods_rows(
    clips: Workspace, tmp_path: Path, method: Any
) -> None:
    folder = str((write_bert if method == "keybert" else write_uie)(tmp_path / "model"))
    settings = SummarizeSettings(method=method, encoder=folder, extractor=folder)
    samples = clips.table(SAMPLES).dataset()
    wanted = summarize_stage(clips, settings).wanted.slice(0, 1)
    actor = ExtractBatch(settings, extractor_identity(settings), samples.uri, samples.version)
    (row,) = actor(wanted).to_pylist()
    assert (
        row["method"] == method and row["status"] in ("ok", "empty") and row["error_type"] is None
    )
    assert row["model"].startswith("model@") and len(row["model"]) == len("model@") + 12
    broken = wanted.set_column(2, "position", pa.array([3]))  # a null where a transcript should be
    assert actor(broken).to_pylist()[0]["error_type"]
    actor.summarizer = lambda text: {
        "product_name": None,
        "product_features": ["松石牙刷", "不打农药"],
    }
    assert actor(wanted).to_pylist()[0]["flags"] == ["unsupported: 不打农药"]


def unreadable(workspace: Workspace) -> tuple[Any, pa.Table]:
    """Three clips whose transcripts hold nothing to read, or a product: the samples, and their due rows."""
    texts = [
        ("u1", "\u200b\x00\ufeff"),
        ("u2", "<|im_end|>"),
        ("u3", "家人们看过来，这款松石牙刷，不伤牙龈"),
    ]
    workspace.table(SAMPLES).append(
        [{"sample_id": i, "domain": "live", "text": t} for i, t in texts]
    )
    samples = workspace.table(SAMPLES).dataset()
    return samples, summarize_stage(workspace, SHIPPED).wanted


def test_nothing_to_read_is_missing_and_passes_the_engine_by(workspace: Workspace) -> None:
    samples, wanted = unreadable(workspace)
    formed = FormPrompts(SHIPPED, samples.uri, samples.version)(wanted).to_pylist()
    assert [row["__inference_error__"] for row in formed] == ["settled", "settled", ""]
    batch = answers(("u3", 0, 1, NAME, "")) | {"settled": np.array([formed[0]["settled"]])}
    (row,) = ReadAnswers(SHIPPED, ORIGIN, 1024)(batch).to_pylist()
    assert (row["sample_id"], row["method"], row["status"], row["text"]) == (
        "u1",
        "llm",
        "missing",
        None,
    )
    raw = ExtractBatch(RAW, None, samples.uri, samples.version)(wanted.slice(0, 1)).to_pylist()
    assert [(row["method"], row["status"], row["model"]) for row in raw] == [
        ("raw", "missing", None)
    ]
    assert (
        sized(wanted.slice(0, 2), SHIPPED, samples).max_num_seqs >= 1
    )  # no prompt at all, and yet a size


def test_what_is_known_to_be_missing_is_so_for_every_method(workspace: Workspace) -> None:
    unreadable(workspace)
    wanted = summarize_stage(workspace, SHIPPED).wanted.to_pylist()
    rows = [missing_row(row["sample_id"], row["fingerprint"], "llm") for row in wanted]
    workspace.table(SUMMARIES).append(rows)
    run_stage(
        summarize_stage(workspace, SummarizeSettings(dtype="float32", method="llm-name")), workspace
    )
    assert {row["status"] for row in made(workspace, "llm-name").values()} == {"missing"}


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_an_engine_of_quantized_weights_answers_on_the_rows_beside_those_it_is_not_asked_about(
    workspace: Workspace, tmp_path: Path
) -> None:
    """A real engine. Ray leaves out what has an error already; how weights are stored, the model's folder tells."""
    unreadable(workspace)
    model = str(write_quantized(tmp_path / "eight-bits"))
    # With 8-bit weights the kernels of some processors take no float32.
    settings = SummarizeSettings(dtype="bfloat16", model=model, prompt="bare")
    report = run_stage(summarize_stage(workspace, settings), workspace)
    rows = made(workspace, "llm")
    assert (report.done, rows["u1"]["status"], rows["u2"]["status"]) == (3, "missing", "missing")
    assert rows["u3"]["product_name"] == "松石牙刷" and rows["u3"]["model"].startswith(
        "eight-bits@"
    )


def test_a_transcript_that_no_prompt_can_be_made_of_costs_its_own_row(
    clips: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = clips.table(SAMPLES).dataset()
    wanted = summarize_stage(clips, SHIPPED).wanted
    actor = FormPrompts(SHIPPED, samples.uri, samples.version)
    questions = actor.asker.questions
    monkeypatch.setattr(
        actor.asker, "questions", lambda text: questions(text) if "牙刷" in text else [][0]
    )
    first, second = actor(wanted.take([0, 3])).to_pylist()
    assert (first["settled"], first["heard"]) == ("", "这个松石牙刷软毛")
    batch = answers(("s4", 0, 1, NAME, "")) | {"settled": np.array([second["settled"]])}
    (row,) = ReadAnswers(SHIPPED, ORIGIN, 1024)(batch).to_pylist()
    assert (row["sample_id"], row["error_type"]) == ("s4", "IndexError") and "out of range" in row[
        "error_message"
    ]
    assert (
        sized(wanted.take([0, 3]), SHIPPED, samples).max_model_len == 272
    )  # nor does it stop the job


def test_prompts_are_formed_from_the_rows_own_transcripts(clips: Workspace) -> None:
    samples = clips.table(SAMPLES).dataset()
    wanted = summarize_stage(clips, SHIPPED).wanted
    formed = FormPrompts(SHIPPED, samples.uri, samples.version)(wanted.take([0, 3])).to_pylist()
    assert [(row["sample_id"], row["heard"], row["piece"], row["pieces"]) for row in formed] == [
        ("s1", "这个松石牙刷软毛", 0, 1),
        ("s4", "大家晚上好", 0, 1),
    ]
    assert (
        asker(SHIPPED).tokenizer.decode(formed[1]["tokenized_prompt"], skip_special_tokens=True)
        == "大家晚上好"
    )


def test_engines_are_sized_by_the_transcripts_that_are_due(clips: Workspace) -> None:
    samples = clips.table(SAMPLES).dataset()
    rows = summarize_stage(clips, SHIPPED).wanted.take([0, 3])
    size = sized(rows, SHIPPED, samples)
    # 3 tokens of the template, 8 of the longest transcript, 256 of an answer: in blocks of 16
    assert size.max_model_len == 272 and size.max_num_seqs == 256
    named = SummarizeSettings(dtype="float32", max_model_len=600, max_num_seqs=7, kv_cache_gb=0.5)
    told = sized(rows, named, samples)
    assert (told.max_model_len, told.max_num_seqs, told.kv_cache_bytes) == (600, 7, 2**29)


def test_the_engines_description(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.data import DataContext

    from ampere.text.sizing import EngineSize

    size = EngineSize(512, 100, 2**20)
    pool = SummarizeSettings(
        workers="1:4", batch_size=64, gpus=0.5, cpus=2, accelerator_type="H100", quantization="fp8"
    )
    config = engine_config(pool, EngineSize(512, 100, None), careful=None)
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
    # Else Ray would never let the pool grow.
    threshold = DataContext.get_current().autoscaling_config.actor_pool_util_upscaling_threshold
    assert config.max_tasks_in_flight_per_actor / config.max_concurrent_batches > threshold
    careful = engine_config(SHIPPED, size, careful=8)
    assert careful.batch_size == 8  # or Ray would join blocks of 8 rows to batches of 64
    assert careful.concurrency == (1, 1) and careful.max_concurrent_batches == 1
    assert careful.max_tasks_in_flight_per_actor == 1
    assert (
        careful.engine_kwargs["kv_cache_memory_bytes"] == 2**20
        and "quantization" not in careful.engine_kwargs
    )
    spread = engine_config(SummarizeSettings(gpus=1, tensor_parallel_size=2), size, careful=None)
    assert spread.engine_kwargs["tensor_parallel_size"] == 2


def test_a_model_that_vllm_no_longer_runs_is_refused_before_any_work(
    clips: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = SummarizeSettings(model="baichuan2-13b-4bit")
    with pytest.raises(
        ValueError, match=r"vLLM runs up to the release before 0.23; here is 0.32. Take another"
    ):
        summarize_stage(clips, old)
    monkeypatch.setattr(chosen, "_vllm_version", lambda: (0, 22))
    assert chosen_model(old)[0].quantization == "bitsandbytes"


def test_a_quantization_that_vllm_does_not_have_is_refused_before_any_work(
    clips: Workspace,
) -> None:
    with pytest.raises(
        ValueError,
        match="summarize.quantization is 'bitsandbytes', which the vLLM at hand does not",
    ):
        summarize_stage(clips, SummarizeSettings(quantization="bitsandbytes"))
    assert summarize_stage(clips, SummarizeSettings(quantization="fp8")).name == "summarize"
    assert (
        summarize_stage(clips, SummarizeSettings(method="raw", quantization="bitsandbytes")).name
        == "summarize-raw"
    )


@pytest.mark.parametrize(("method", "setting"), [("keybert", "encoder"), ("uie", "extractor")])
def test_an_extractor_that_is_not_there_is_refused_before_any_work(
    clips: Workspace, tmp_path: Path, method: Any, setting: str
) -> None:
    chosen: dict[str, Any] = {"method": method, setting: "/no/such"}
    with pytest.raises(
        FileNotFoundError, match=f"summarize.{setting} is /no/such, and there is no such folder"
    ):
        summarize_stage(clips, SummarizeSettings(**chosen))
    with pytest.raises(
        FileNotFoundError, match=f"summarize.{setting} is the folder .* no config.json"
    ):
        summarize_stage(clips, SummarizeSettings(**chosen | {setting: str(tmp_path)}))
    other = {"encoder": "/no/such", "extractor": "/no/such"} | {setting: "some/model"}
    assert (
        summarize_stage(clips, SummarizeSettings(**{"method": method} | other)).name
        == f"summarize-{method}"
    )


def answers(*rows: tuple[str, int, int, str, str]) -> dict[str, Any]:
    """What the engine gives for (sample, piece, pieces, answer, error)."""
    tokens = [asker(SHIPPED).tokenizer.encode(answer) for *_, answer, _ in rows]
    return {
        "sample_id": np.array([row[0] for row in rows]),
        "fingerprint": np.array(["f"] * len(rows)),
        "piece": np.array([row[1] for row in rows]),
        "pieces": np.array([row[2] for row in rows]),
        "heard": np.array(["这个松石牙刷软毛防水"] * len(rows)),
        "language": np.array(["zh"] * len(rows)),
        "generated_tokens": np.array([*tokens, None], object)[:-1],
        "num_input_tokens": np.array([10] * len(rows)),
        "settled": np.array([""] * len(rows)),
        "__inference_error__": np.array([row[4] for row in rows]),
    }


NAME = Summary(product_name="松石牙刷", product_features=("软毛",)).to_json()
MORE = Summary(product_name="松石牙刷", product_features=("防水",)).to_json()


def test_answers_become_rows_in_the_tasks_beside_the_engine() -> None:
    batch = answers(
        ("a", 0, 1, NAME, ""),
        ("b", 0, 1, NO_PRODUCT.to_json(), ""),
        ("c", 0, 1, "{", ""),
        ("d", 0, 1, "", "boom"),
    )
    rows = {row["sample_id"]: row for row in ReadAnswers(SHIPPED, ORIGIN, 1024)(batch).to_pylist()}
    assert (
        rows["a"]["text"] == "松石牙刷 软毛"
        and rows["a"]["flags"] == []
        and rows["a"]["language"] == "zh"
    )
    assert (rows["a"]["model"], rows["a"]["prompt_version"]) == ("small_lm@1", "bare@2")
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
    assert all(row["part"] is None for row in rows.values())


def test_an_answer_at_the_token_limit_says_so() -> None:
    short = SummarizeSettings(dtype="float32", max_tokens=3)
    cut = answers(("a", 0, 1, '{"is_product":tr', ""))
    (row,) = ReadAnswers(short, ORIGIN, 1024)(cut).to_pylist()
    assert row["error_type"] == "AnswerError" and "ended by length" in row["error_message"]
    length = 10 + len(cut["generated_tokens"][0])  # of prompt and answer
    named = SummarizeSettings(dtype="float32", max_model_len=600)
    for settings, most, reason in (
        (named, length, "length"),
        (named, length + 1, "stop"),
        (SHIPPED, length + 1, "stop"),
    ):
        (row,) = ReadAnswers(settings, ORIGIN, most)(cut).to_pylist()
        assert row["error_type"] == "AnswerError" and f"ended by {reason}" in row["error_message"]


def test_an_answer_that_an_engine_sized_for_others_cuts_is_asked_again(clips: Workspace) -> None:
    """The size came from other transcripts; the careful turn takes it anew from those that are left."""
    cut = answers(
        ("a", 0, 1, '{"is_product":tr', ""),
        ("b", 0, 2, NAME, ""),
        ("b", 1, 2, '{"is_product":tr', ""),
    )
    length = 10 + len(cut["generated_tokens"][0])
    rows = ReadAnswers(SHIPPED, ORIGIN, length)(cut).to_pylist()
    assert [row["sample_id"] for row in rows] == [
        "a",
        "b",
    ]  # one piece that is cut costs its transcript
    for row in rows:
        assert (
            row["error_type"] == "EngineError"
            and f"had room for {length} tokens" in row["error_message"]
        )
    assert "EngineError" in summarize_stage(clips, SHIPPED).passing_errors


def test_pieces_come_together_however_they_arrive() -> None:
    together = ReadAnswers(SHIPPED, ORIGIN, 1024)(
        answers(("a", 1, 2, MORE, ""), ("a", 0, 2, NAME, ""))
    )
    (whole,) = together.to_pylist()
    assert (whole["text"], whole["pieces"], whole["part"]) == ("松石牙刷 软毛 防水", 2, None)
    apart = [
        ReadAnswers(SHIPPED, ORIGIN, 1024)(answers(("a", 1, 2, MORE, ""), ("b", 0, 1, NAME, "")))
    ]
    apart.append(ReadAnswers(SHIPPED, ORIGIN, 1024)(answers(("a", 0, 2, NAME, ""))))
    first, second = assembled(iter(apart))
    assert first["sample_id"].to_pylist() == ["b"]  # what is whole does not wait
    assert second.to_pylist() == together.drop(["part"]).to_pylist()


def test_a_piece_that_fails_costs_its_transcript_and_one_that_is_lost_leaves_it_unanswered() -> (
    None
):
    read = ReadAnswers(SHIPPED, ORIGIN, 1024)
    failed = [read(answers(("a", i, 2, NAME, error))) for i, error in enumerate(("", "boom"))]
    _, last = assembled(iter(failed))
    assert last["error_type"].to_pylist() == ["EngineError"]
    assert [table.num_rows for table in assembled(iter(failed[:1]))] == [0]


@pytest.mark.parametrize("field", ["product_name", "product_features"])
def test_an_answer_with_half_a_character_costs_its_own_row(field: str) -> None:
    half = {"product_name": "松石牙刷", "product_features": ["软毛"], "is_product": True}
    half[field] = ["\ud83d"] if field == "product_features" else "\ud83d"
    together, alone = (
        answers(("a", 0, 1, json.dumps(half), ""), ("b", 0, 1, NAME, "")),
        json.dumps(half),
    )
    rows = {
        row["sample_id"]: row for row in ReadAnswers(SHIPPED, ORIGIN, 1024)(together).to_pylist()
    }
    assert (
        rows["a"]["error_type"] == "AnswerError"
        and "surrogates not allowed" in rows["a"]["error_message"]
    )
    assert rows["b"]["text"] == "松石牙刷 软毛"
    read = ReadAnswers(SHIPPED, ORIGIN, 1024)
    parts = [read(answers(("a", i, 2, answer, ""))) for i, answer in enumerate((NAME, alone))]
    _, last = assembled(iter(parts))
    assert last["error_type"].to_pylist() == ["AnswerError"]


def test_nothing_is_left_in_the_ledger_of_what_succeeds_later(clips: Workspace) -> None:
    clips.table(FAILURES).append(
        [{"stage": "summarize-raw", "sample_id": "s1", "fingerprint": "x", "attempts": 1}]
    )
    run_stage(summarize_stage(clips, RAW), clips, retry_failed=True)
    assert clips.table(FAILURES).count() == 0
