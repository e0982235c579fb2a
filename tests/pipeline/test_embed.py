"""The embed stage: frames read beside the model, rows that fail alone, and what is told of the pool."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch._dynamo.utils import counters

from ampere.config.embed import EmbedSettings
from ampere.media.images import model_input
from ampere.models.embedder import Embedder
from ampere.models.model_folder import CONFIG_FILE, SETTINGS_FILE, embedding_name
from ampere.pipeline.embed import EmbedBatch, embed_stage, read_pixels
from ampere.pipeline.runner.pool_stats import COLUMNS, PoolWatch
from ampere.pipeline.runner.run import run_stage
from ampere.records import EMBEDDINGS, FAILURES, FRAMES, SAMPLES, SUMMARIES, Domain, Split
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from ampere.training.loop import build_model
from tests.helpers.training import SIZES, coloured, small_job, small_set

PRODUCTS = 4
BROKEN = "live-02-1"


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """Four products with two samples in each domain, one of them with spoilt frames, and a model `m`."""
    training_set, frames = small_set(PRODUCTS)
    frames.frames[BROKEN] = [b"no picture"] * SIZES.num_frames
    for product, domains in training_set.products.items():
        for domain, ids in domains.items():
            rows = [
                {"sample_id": i, "product_id": product, "domain": domain, "split": "test"}
                for i in ids
            ]
            workspace.table(SAMPLES).upsert(
                [row | {"text": training_set.texts[row["sample_id"]]} for row in rows]
            )
    workspace.table(FRAMES).upsert(
        [
            {"sample_id": name, "fingerprint": "f", "frames": jpegs}
            for name, jpegs in frames.frames.items()
        ]
    )
    job = small_job(training_set)
    torch.manual_seed(0)
    folder = model_path(workspace)
    build_model(job).save_pretrained(folder, job.tokenizer)
    (folder / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "raw"}}))
    return workspace


def model_path(workspace: Workspace) -> Path:
    return Path(workspace.uri) / "models" / "m"


def pixels_of(workspace: Workspace) -> pa.Table:
    """What the reading tasks give for all samples."""
    stage, frames = embed_stage(workspace, EmbedSettings(model="m")), LanceFrames(workspace)
    return read_pixels(stage.wanted, frames.uri, frames.version, SIZES.image_size)


def actor(workspace: Workspace, **settings: Any) -> EmbedBatch:
    return EmbedBatch(
        workspace.uri, embedding_name(model_path(workspace)), EmbedSettings(model="m", **settings)
    )


def test_pixels_are_those_that_the_model_would_make_itself(filled: Workspace) -> None:
    rows = pixels_of(filled).to_pylist()
    assert [row["sample_id"] for row in rows if row["error_type"]] == [BROKEN]
    ids = [row["sample_id"] for row in rows]
    stored = dict(zip(ids, LanceFrames(filled).take(ids), strict=True))
    for row in rows:
        if row["pixels"] is None:
            assert "cannot identify" in row["error_message"]
        else:
            expected = model_input(stored[row["sample_id"]], SIZES.image_size)
            assert row["pixels"] == expected.tobytes()


def test_a_batch_gives_the_embedders_vectors_and_the_bad_row_its_reason(filled: Workspace) -> None:
    folder = model_path(filled)
    results = actor(filled)(pixels_of(filled)).to_pylist()
    assert len(results) == PRODUCTS * 6
    (bad,) = [row for row in results if row["error_type"]]
    assert bad["sample_id"] == BROKEN and bad["vector"] is None
    good = [row for row in results if not row["error_type"]]
    ids = [row["sample_id"] for row in good]
    texts = {row["sample_id"]: row["text"] for row in pixels_of(filled).to_pylist()}
    expected = Embedder(folder).embed(
        LanceFrames(filled).take(ids),
        [texts[i] for i in ids],
        [Domain(row["domain"]) for row in good],
    )
    np.testing.assert_allclose([row["vector"] for row in good], expected, atol=1e-6)


def test_a_row_that_spoils_its_batch_costs_itself_alone(filled: Workspace) -> None:
    batch = pixels_of(filled)
    rows = batch.to_pylist()
    victim = next(row for row in rows if row["pixels"] is not None)
    victim["pixels"] = victim["pixels"][:-1]  # no whole number of frames
    results = actor(filled)(pa.Table.from_pylist(rows, schema=batch.schema)).to_pylist()
    assert {row["sample_id"] for row in results if row["error_type"]} == {
        BROKEN,
        victim["sample_id"],
    }
    assert sum(row["vector"] is not None for row in results) == PRODUCTS * 6 - 2


def test_rows_share_batches_with_their_own_domain(filled: Workspace) -> None:
    domains = embed_stage(filled, EmbedSettings(model="m")).wanted["domain"].to_pylist()
    assert domains == sorted(domains) and set(domains) == set(Domain)


def test_the_rows_of_another_split_stay(filled: Workspace) -> None:
    """As of a model whose test samples alone are judged: what it has besides is not removed."""
    name = embedding_name(model_path(filled))
    filled.table(EMBEDDINGS).upsert(
        [{"sample_id": "page-00-0", "model": name, "vector": [1.0], "domain": "page"}]
    )
    settings = EmbedSettings(model="m")
    assert embed_stage(filled, settings, Split.TEST).wanted.num_rows == PRODUCTS * 6
    stage = embed_stage(filled, settings, Split.TRAIN)
    assert stage.wanted.num_rows == 0 and run_stage(stage, filled).notes == []
    assert filled.table(EMBEDDINGS).count() == 1


def failing(
    monkeypatch: pytest.MonkeyPatch, embed: EmbedBatch, error: Exception, least: int = 1
) -> None:
    """Let batches of so many samples fail."""
    whole = embed.embedder.embed_pixels

    def fail(pixels: Any, texts: Any, domains: Any) -> Any:
        if len(pixels) >= least:
            raise error
        return whole(pixels, texts, domains)

    monkeypatch.setattr(embed.embedder, "embed_pixels", fail)


def test_a_worker_whose_accelerator_fails_ends_and_blames_no_row(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embed = actor(filled)
    failing(
        monkeypatch,
        embed,
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    )
    monkeypatch.setattr("os._exit", lambda status: (_ for _ in ()).throw(SystemExit(status)))
    with pytest.raises(SystemExit) as ended:
        embed(pixels_of(filled))
    assert (
        ended.value.code == 1
        and "this worker ends: AcceleratorError: CUDA error" in capsys.readouterr().err
    )


def test_a_batch_that_finds_no_memory_is_parted_and_one_row_that_finds_none_ends_the_job(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = actor(filled)
    with monkeypatch.context() as patch:
        failing(patch, embed, torch.OutOfMemoryError("CUDA out of memory"), least=2)
        found = embed(pixels_of(filled)).to_pylist()
        assert [row["sample_id"] for row in found if row["error_type"]] == [BROKEN]
    failing(monkeypatch, embed, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        embed(pixels_of(filled))


@pytest.mark.parametrize("compiled", [False, True])
def test_an_actor_is_warm_before_it_is_ready(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """Compiling itself takes minutes; see `test_a_compiled_network_gives_the_same_vectors`."""
    clock = iter(range(100))
    monkeypatch.setattr("ampere.pipeline.embed.time.time", lambda: next(clock))
    warmed: list[tuple[str, int | None, int]] = []
    for name in ("compile", "warm_up"):
        note = lambda self, name=name: warmed.append((name, self.fixed, next(clock)))  # noqa: E731
        monkeypatch.setattr(Embedder, name, note)
    found = actor(filled, compile=compiled, batch_size=5)
    [(name, fixed, when)] = warmed
    assert (name, fixed) == (
        ("compile", 5) if compiled else ("warm_up", None)
    ) and when < found.ready


def test_clips_that_nobody_summarized_are_told(filled: Workspace) -> None:
    (model_path(filled) / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "llm"}}))
    with pytest.raises(
        ValueError, match=r"what model m reads is llm and there are no summaries of method llm; run"
    ):
        embed_stage(filled, EmbedSettings(model="m"))
    spoken = (
        filled.table(SAMPLES)
        .read(["sample_id"], "domain <> 'page' AND text <> ''")["sample_id"]
        .to_pylist()
    )
    filled.table(SUMMARIES).upsert([{"sample_id": spoken[0], "method": "llm", "text": "a"}])
    describe = embed_stage(filled, EmbedSettings(model="m")).describe
    assert describe is not None
    told = describe(filled.table(EMBEDDINGS))
    assert told.startswith(
        f"embed: {len(spoken) - 1} of {len(spoken)} clips with a transcript have no row of method"
    )


def test_a_network_of_no_fixed_shape_is_not_compiled(filled: Workspace) -> None:
    (model_path(filled) / CONFIG_FILE).write_text(json.dumps({"architecture": "MLLM"}))
    with pytest.raises(
        ValueError, match=r"m is a multimodal language model.*set --embed.no-compile"
    ):
        embed_stage(filled, EmbedSettings(model="m", compile=True))


def test_a_vector_that_is_not_finite_is_listed(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = actor(filled)
    batch = pixels_of(filled)
    victim = batch["sample_id"][0].as_py()
    whole = embed.embedder.embed_pixels

    def overflowing(pixels: Any, texts: Any, domains: Any) -> Any:
        spoilt = [frames[0, 0, 0, 0] == 255 for frames in pixels]
        return np.where(np.array(spoilt)[:, None], np.nan, whole(pixels, texts, domains))

    rows = batch.to_pylist()
    for row in rows:
        if row["pixels"] is not None:
            row["pixels"] = (b"\xff" if row["sample_id"] == victim else b"\x00") + row["pixels"][1:]
    monkeypatch.setattr(embed.embedder, "embed_pixels", overflowing)
    results = embed(pa.Table.from_pylist(rows, schema=batch.schema)).to_pylist()
    failed = {row["sample_id"]: row["error_message"] for row in results if row["error_type"]}
    assert failed.keys() == {BROKEN, victim} and "the vector is not finite" in failed[victim]


def test_a_long_block_is_parted_into_batches(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = actor(filled, batch_size=5)
    sizes = []
    whole = embed.embedder.embed_pixels
    monkeypatch.setattr(
        embed.embedder,
        "embed_pixels",
        lambda pixels, *rest: sizes.append(len(pixels)) or whole(pixels, *rest),
    )
    assert embed(pixels_of(filled)).num_rows == PRODUCTS * 6
    assert sizes == [5, 5, 5, 5, 3]  # of 24 samples one could not be read


def test_an_actor_that_finds_other_weights_refuses(filled: Workspace) -> None:
    """The driver's name for the vectors is of the weights at the start; a training may have come since."""
    with pytest.raises(
        ValueError,
        match=r"model m is m@\w+ by now, and this was started for m@old; run `ampere embed`",
    ):
        EmbedBatch(filled.uri, "m@old", EmbedSettings(model="m"))


def test_batches_of_a_fixed_shape_give_the_same_vectors(filled: Workspace) -> None:
    folder = model_path(filled)
    rows = [row for row in pixels_of(filled).to_pylist() if row["pixels"]]
    side = SIZES.image_size
    arguments = (
        [np.frombuffer(row["pixels"], np.uint8).reshape(-1, 3, side, side) for row in rows],
        [row["text"] for row in rows],
        [Domain(row["domain"]) for row in rows],
    )
    fixed = Embedder(folder, fixed=5)
    seen: set[tuple[tuple[int, ...], ...]] = set()
    fixed.model.register_forward_pre_hook(
        lambda _, inputs: seen.add(tuple(tuple(tensor.shape) for tensor in inputs)),
    )
    fixed.warm_up()
    warm = set(seen)
    np.testing.assert_allclose(
        fixed.embed_pixels(*arguments), Embedder(folder).embed_pixels(*arguments), atol=1e-5
    )
    assert seen == warm  # nothing that the warm-up had not shown it
    length = SIZES.max_text_tokens
    assert seen == {
        ((5, count, 3, side, side), (5, length), (5, length), (5,)) for count in (1, SIZES.num_frames)
    }  # fmt: skip


def test_only_batches_of_one_size_are_compiled_for(filled: Workspace) -> None:
    with pytest.raises(ValueError, match="compiled for batches of one size"):
        Embedder(model_path(filled)).compile()


def test_a_compiled_network_gives_the_same_vectors(filled: Workspace) -> None:
    folder = model_path(filled)
    frames, texts = [coloured(1, 1), coloured(2, SIZES.num_frames)], ["product 1", None]
    domains = [Domain.PAGE, Domain.LIVE]
    compiled = Embedder(folder, fixed=2)
    counters.clear()
    compiled.compile(
        backend="eager"
    )  # torch's capture; inductor takes a minute, and benchmarks/embed.py has it
    assert (
        not counters["graph_break"] and counters["stats"]["unique_graphs"] == 2
    )  # pages and clips, each in one piece
    with torch.compiler.set_stance("fail_on_recompile"):
        found = compiled.embed(frames, texts, domains)
    np.testing.assert_allclose(found, Embedder(folder).embed(frames, texts, domains), atol=1e-5)


@pytest.mark.usefixtures("local_ray")
def test_the_stage_embeds_lists_what_it_could_not_and_tells_of_its_pool(filled: Workspace) -> None:
    earlier = [
        {"sample_id": "page-00-0", "model": model, "vector": [1.0]} for model in ("m@old", "n@old")
    ]
    filled.table(EMBEDDINGS).upsert([row | {"domain": "page"} for row in earlier])
    settings = EmbedSettings(model="m", batch_size=4, workers="1:2", hourly_price=3.0)
    report = run_stage(embed_stage(filled, settings), filled)
    assert report.done == PRODUCTS * 6 - 1 and report.failed.total() == 1
    (failure,) = filled.table(FAILURES).read(["sample_id", "message"]).to_pylist()
    assert failure["sample_id"] == BROKEN and "cannot identify" in failure["message"]
    removed, note = report.notes
    assert removed == "embed-m: 1 rows removed, whose place these take"
    assert filled.table(EMBEDDINGS).count("model = 'n@old'") == 1
    filled.table(EMBEDDINGS).delete("model = 'n@old'")
    assert filled.table(EMBEDDINGS).read(["sample_id"]).num_rows == report.done
    assert "of at most 2 workers gave results" in note and "at 3 an hour)" in note
    again = run_stage(embed_stage(filled, settings), filled)
    assert (again.done, again.skipped, again.notes) == (0, report.done, [])
    # A sample that lost its frames, as when its new picture cannot be decoded, loses its vector.
    filled.table(FRAMES).delete("sample_id = 'page-00-0'")
    filled.table(EMBEDDINGS).upsert(
        [{"sample_id": "page-00-0", "model": "other", "vector": [1.0], "domain": "page"}]
    )
    last = run_stage(embed_stage(filled, settings), filled)
    assert last.notes == ["embed-m: 1 rows removed, of samples that it has no input for any more"]
    left = filled.table(EMBEDDINGS).read(["sample_id", "model"]).to_pylist()
    assert len(left) == report.done and {
        row["model"] for row in left if row["sample_id"] == "page-00-0"
    } == {"other"}


def seen(worker: str | None, ready: float | None, seconds: float | None, rows: int = 1) -> pa.Table:
    row = {"sample_id": "s", "worker": worker, "ready": ready, "seconds": seconds}
    return pa.Table.from_pylist(
        [row] * rows, schema=pa.schema([("sample_id", pa.string()), *COLUMNS])
    )


def test_what_a_pool_did_is_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 112.0, 120.0, 140.0])  # begin, and the three batches with workers
    monkeypatch.setattr("ampere.pipeline.runner.pool_stats.time.time", lambda: next(clock))
    watch = PoolWatch(most=3, hourly_price=2.0)
    watch.begin()

    def batches() -> Iterator[pa.Table]:
        yield seen("a", 110.0, 0.5, rows=4)
        yield seen(None, None, None)  # a row that no worker saw
        yield seen("b", 115.0, 0.25, rows=32)
        yield seen("b", 115.0, 0.5, rows=4)

    passed = list(watch.watched(batches()))
    assert [batch.column_names for batch in passed] == [["sample_id"]] * 4
    assert [batch.num_rows for batch in passed] == [4, 1, 32, 4]
    # a, which the pool removed then, was there for 2 s and b for 25; busy for 2 and 10 of them.
    assert watch.figures() == {
        "first_batch_s": 12.0,
        "workers": 2,
        "last_worker_ready_s": 15.0,
        "busy_share": pytest.approx(12 / 27),
        "rows_per_worker_hour": pytest.approx(40 / 27 * 3600),
    }
    assert "2 of at most 3 workers gave results" in str(watch)
    assert (
        "5,333 samples per worker-hour (187 worker-hours for a million, 375.00 at 2 an hour)"
        in str(watch)
    )


def test_a_pool_that_did_nothing_tells_nothing() -> None:
    assert str(PoolWatch(most=1)) == ""
