"""The embed stage: frames read in tasks, rows that fail alone, statistics of the pool."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch._dynamo.utils import counters

from ampere.config.embed import EmbedSettings
from ampere.media.images import model_input
from ampere.models.embedder import Embedder
from ampere.models.model_folder import CONFIG_FILE, SETTINGS_FILE, embedding_name
from ampere.pipeline.embed import EmbedBatch, EmbedStage, read_pixels
from ampere.pipeline.runner.pool_stats import WORKER_COLUMNS, PoolStats
from ampere.pipeline.runner.run import run_stage
from ampere.records import FAILURES, FRAMES, SAMPLES, SUMMARIES, Domain, Split
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from ampere.training.loop import build_model
from tests.helpers.embeddings import embeddings_of, write_embeddings
from tests.helpers.training import SIZES, small_job, small_set, solid_frames

PRODUCTS = 4
BROKEN = "live-02-1"


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """Four products with two samples per domain, one with broken frames, and a model `m`."""
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
    """The batch that the reading tasks give for all samples."""
    stage, frames = EmbedStage(workspace, EmbedSettings(model="m")), LanceFrames(workspace)
    return read_pixels(stage.inputs(), frames.uri, frames.version, SIZES.image_size)


def actor(workspace: Workspace, **settings: Any) -> EmbedBatch:
    return EmbedBatch(
        workspace.uri, embedding_name(model_path(workspace)), EmbedSettings(model="m", **settings)
    )


def test_pixels_equal_the_models_own_preprocessing(filled: Workspace) -> None:
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


def test_actor_returns_the_embedders_vectors_and_errors(filled: Workspace) -> None:
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


def test_row_that_fails_its_batch_fails_alone(filled: Workspace) -> None:
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


def test_batches_hold_rows_of_one_domain(filled: Workspace) -> None:
    domains = EmbedStage(filled, EmbedSettings(model="m")).inputs()["domain"].to_pylist()
    assert domains == sorted(domains) and set(domains) == set(Domain)


def test_orphans_stay_without_pruning(filled: Workspace) -> None:
    """The ablation embeds the test split only; other embeddings of the model stay."""
    name = embedding_name(model_path(filled))
    row = {"sample_id": "page-00-0", "vector": [1.0], "domain": "page", "split": "test"}
    table = write_embeddings(filled, name, [row | {"text": "product 0"}])
    settings = EmbedSettings(model="m")
    assert EmbedStage(filled, settings, Split.TEST).inputs().num_rows == PRODUCTS * 6
    stage = EmbedStage(filled, settings, Split.TRAIN)
    assert stage.inputs().num_rows == 0
    assert run_stage(stage, filled, prune_orphans=False).done == 0
    assert table.count() == 1


def failing(
    monkeypatch: pytest.MonkeyPatch, embed: EmbedBatch, error: Exception, min_batch: int = 1
) -> None:
    """Make batches of `min_batch` samples or more fail."""
    whole = embed.embedder.embed_pixels

    def fail(pixels: Any, texts: Any, domains: Any, *, alone: bool) -> Any:
        if len(pixels) >= min_batch:
            raise error
        return whole(pixels, texts, domains, alone=alone)

    monkeypatch.setattr(embed.embedder, "embed_pixels", fail)


def test_worker_exits_on_accelerator_error(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
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
    assert ended.value.code == 1
    assert "this worker exits: AcceleratorError: CUDA error" in caplog.text


def test_oom_batch_is_split_and_single_row_oom_fails_job(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = actor(filled)
    with monkeypatch.context() as patch:
        failing(patch, embed, torch.OutOfMemoryError("CUDA out of memory"), min_batch=2)
        results = embed(pixels_of(filled)).to_pylist()
        assert [row["sample_id"] for row in results if row["error_type"]] == [BROKEN]
        assert {row["retried"] for row in results if not row["error_type"]} == {True}
    failing(monkeypatch, embed, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        embed(pixels_of(filled))


@pytest.mark.parametrize("compiled", [False, True])
def test_actor_is_warm_before_it_is_ready(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """Compiling itself takes minutes; see `test_compiled_network_gives_the_same_vectors`."""
    clock = iter(range(100))
    monkeypatch.setattr("ampere.pipeline.embed.time.time", lambda: next(clock))
    warmed: list[tuple[str, int | None, int]] = []
    for name in ("compile", "warm_up"):

        def note(self: Embedder, name: str = name, **_: object) -> None:
            warmed.append((name, self.fixed_batch_size, next(clock)))

        monkeypatch.setattr(Embedder, name, note)
    embed = actor(filled, compile=compiled, batch_size=5)
    [(name, fixed, when)] = warmed
    assert (name, fixed) == (
        ("compile", 5) if compiled else ("warm_up", None)
    ) and when < embed.ready


def test_missing_summaries_are_an_error_or_a_warning(filled: Workspace) -> None:
    (model_path(filled) / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "llm"}}))
    with pytest.raises(
        ValueError,
        match=r"text source of model m is llm, but no summaries of method llm found.* Run",
    ):
        EmbedStage(filled, EmbedSettings(model="m")).inputs()
    spoken = (
        filled.table(SAMPLES)
        .read(["sample_id"], (pc.field("domain") != "page") & (pc.field("text") != ""))["sample_id"]
        .to_pylist()
    )
    filled.table(SUMMARIES).upsert(
        [{"sample_id": spoken[0], "method": "llm", "model": "", "text": "a"}]
    )
    stage = EmbedStage(filled, EmbedSettings(model="m"))
    stage.inputs()
    (warning,) = stage.warnings
    assert warning.startswith(
        f"embed: {len(spoken) - 1} of {len(spoken)} clips with a transcript have no summary"
    )


def test_network_without_fixed_shapes_is_not_compiled(filled: Workspace) -> None:
    (model_path(filled) / CONFIG_FILE).write_text(json.dumps({"architecture": "MLLM"}))
    with pytest.raises(ValueError, match=r"m reads texts of any length.*Use --embed.no-compile"):
        EmbedStage(filled, EmbedSettings(model="m", compile=True))


def test_nan_embedding_fails_its_row(filled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = actor(filled)
    batch = pixels_of(filled)
    victim = batch["sample_id"][0].as_py()
    whole = embed.embedder.embed_pixels

    def overflowing(pixels: Any, texts: Any, domains: Any, **options: Any) -> Any:
        broken = [frames[0, 0, 0, 0] == 255 for frames in pixels]
        return np.where(np.array(broken)[:, None], np.nan, whole(pixels, texts, domains, **options))

    rows = batch.to_pylist()
    for row in rows:
        if row["pixels"] is not None:
            row["pixels"] = (b"\xff" if row["sample_id"] == victim else b"\x00") + row["pixels"][1:]
    monkeypatch.setattr(embed.embedder, "embed_pixels", overflowing)
    results = embed(pa.Table.from_pylist(rows, schema=batch.schema)).to_pylist()
    failed = {row["sample_id"]: row["error_message"] for row in results if row["error_type"]}
    assert failed.keys() == {BROKEN, victim} and "contains NaN or Inf" in failed[victim]


def test_large_block_is_split_into_batches(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = actor(filled, batch_size=5)
    sizes = []
    whole = embed.embedder.embed_pixels
    monkeypatch.setattr(
        embed.embedder,
        "embed_pixels",
        lambda pixels, *rest, **options: (
            sizes.append(len(pixels)) or whole(pixels, *rest, **options)
        ),
    )
    assert embed(pixels_of(filled)).num_rows == PRODUCTS * 6
    assert sizes == [5, 5, 5, 5, 3]  # one of 24 samples could not be read


def test_actor_refuses_changed_weights(filled: Workspace) -> None:
    """A training may have replaced the weights that the driver named the vectors by."""
    with pytest.raises(
        ValueError,
        match=r"weights of m changed: expected m@old, found m@\w+. Run `ampere embed`",
    ):
        EmbedBatch(filled.uri, "m@old", EmbedSettings(model="m"))


def test_fixed_batch_shapes_give_the_same_vectors(filled: Workspace) -> None:
    folder = model_path(filled)
    rows = [row for row in pixels_of(filled).to_pylist() if row["pixels"]]
    side = SIZES.image_size
    arguments = (
        [np.frombuffer(row["pixels"], np.uint8).reshape(-1, 3, side, side) for row in rows],
        [row["text"] for row in rows],
        [Domain(row["domain"]) for row in rows],
    )
    fixed = Embedder(folder, fixed_batch_size=5)
    seen: set[tuple[tuple[int, ...], ...]] = set()
    fixed.model.register_forward_pre_hook(
        lambda _, inputs: seen.add(tuple(tuple(tensor.shape) for tensor in inputs)),
    )
    fixed.warm_up()
    warm = set(seen)
    np.testing.assert_allclose(
        fixed.embed_pixels(*arguments), Embedder(folder).embed_pixels(*arguments), atol=1e-5
    )
    assert seen == warm  # no shape that the warm-up did not run
    length = SIZES.max_text_tokens
    assert seen == {
        ((5, count, 3, side, side), (5, length), (5, length), (5,))
        for count in (1, SIZES.num_frames)
    }


def test_compiling_requires_a_fixed_batch_size(filled: Workspace) -> None:
    with pytest.raises(ValueError, match="compiled for batches of one size"):
        Embedder(model_path(filled)).compile()


def test_compiled_network_gives_the_same_vectors(filled: Workspace) -> None:
    folder = model_path(filled)
    frames, texts = [solid_frames(1, 1), solid_frames(2, SIZES.num_frames)], ["product 1", None]
    domains = [Domain.PAGE, Domain.LIVE]
    compiled = Embedder(folder, fixed_batch_size=2)
    counters.clear()
    compiled.compile(
        backend="eager"
    )  # torch's capture; inductor takes a minute, and benchmarks/embed.py has it
    assert (
        not counters["graph_break"] and counters["stats"]["unique_graphs"] == 2
    )  # pages and clips, each in one piece
    with torch.compiler.set_stance("fail_on_recompile"):
        vectors = compiled.embed(frames, texts, domains)
    np.testing.assert_allclose(vectors, Embedder(folder).embed(frames, texts, domains), atol=1e-5)


@pytest.mark.usefixtures("local_ray")
def test_stage_embeds_records_failures_and_reports_its_pool(filled: Workspace) -> None:
    old = write_embeddings(filled, "m@0", [{"sample_id": "page-00-0", "vector": [1.0]}])
    table = embeddings_of(filled, embedding_name(model_path(filled)))
    settings = EmbedSettings(model="m", batch_size=4, workers="1:2", hourly_price=3.0)
    report = run_stage(EmbedStage(filled, settings), filled)
    assert report.done == PRODUCTS * 6 - 1 and report.failed.total() == 1
    (failure,) = filled.table(FAILURES).read(["sample_id", "message"]).to_pylist()
    assert failure["sample_id"] == BROKEN and "cannot identify" in failure["message"]
    (note,) = report.notes
    assert table.count() == report.done and old.count() == 1
    assert "workers, at most 2 at once" in note and "at 3 an hour)" in note
    again = run_stage(EmbedStage(filled, settings), filled)
    assert (again.done, again.skipped, again.notes) == (0, report.done, [])
    # A sample without frames, such as one whose new picture cannot be decoded, loses its vector.
    filled.table(FRAMES).delete(pc.field("sample_id") == "page-00-0")
    last = run_stage(EmbedStage(filled, settings), filled)
    assert last.notes == ["embed-m: removed 1 orphaned rows (their samples no longer have input)"]
    assert table.count() == report.done - 1 and old.count() == 1


def seen(worker: str | None, ready: float | None, seconds: float | None, rows: int = 1) -> pa.Table:
    row = {"sample_id": "s", "worker": worker, "ready": ready, "seconds": seconds, "retried": None}
    return pa.Table.from_pylist(
        [row] * rows, schema=pa.schema([("sample_id", pa.string()), *WORKER_COLUMNS])
    )


def test_pool_statistics_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 112.0, 120.0, 140.0])  # start, and the three batches with workers
    monkeypatch.setattr("ampere.pipeline.runner.pool_stats.time.time", lambda: next(clock))
    pool = PoolStats(max_workers=3, hourly_price=2.0)
    pool.start()

    def batches() -> Iterator[pa.Table]:
        yield seen("a", 110.0, 0.5, rows=4)
        yield seen(None, None, None)  # a row without a worker
        yield seen("b", 115.0, 0.25, rows=32)
        yield seen("b", 115.0, 0.5, rows=4)

    passed = list(pool.collect(batches()))
    assert [batch.column_names for batch in passed] == [["sample_id"]] * 4
    assert [batch.num_rows for batch in passed] == [4, 1, 32, 4]
    # Worker a, which the pool removed, was ready for 2 s and b for 25; busy for 2 and 10.
    assert pool.figures() == {
        "first_batch_s": 12.0,
        "workers": 2,
        "last_worker_ready_s": 15.0,
        "busy_share": pytest.approx(12 / 27),
        "rows_per_worker_hour": pytest.approx(40 / 27 * 3600),
        "worker_hours": pytest.approx(27 / 3600),
        "cost": pytest.approx(2 * 27 / 3600),
    }
    assert "2 workers, at most 3 at once" in str(pool)
    assert (
        "5,333 samples per worker-hour (187 worker-hours per million, 375.00 at 2 an hour)"
        in str(pool)
    )


def test_idle_pool_reports_nothing() -> None:
    assert str(PoolStats(max_workers=1)) == ""
