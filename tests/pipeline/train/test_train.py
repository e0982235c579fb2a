"""The train stage: what it trains on and goes on with; under Ray Train two gloo workers, a model that loads."""

import dataclasses
import json
import math
import pickle
import queue
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ampere.cli import main
from ampere.config.model import ModelSettings
from ampere.config.train import TrainSettings
from ampere.models.checkpoint import load_weights
from ampere.models.embedder import Embedder
from ampere.pipeline.train import stage as train
from ampere.pipeline.train.stage import (
    check_frame_count,
    interruptible,
    run_training,
    tokenizer_for,
    train_on_ray,
    training_data,
    training_fingerprint,
)
from ampere.pipeline.train.trackers import Progress
from ampere.pipeline.train.worker import train_worker
from ampere.records import EMBEDDINGS, FRAMES, SAMPLES, SUMMARIES, Domain, Split
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from ampere.training.data import Products, TrainingSet
from ampere.training.loop import TrainJob, build_model
from tests.helpers.models import save_tiny_clip
from tests.helpers.trackers import Library
from tests.helpers.training import SIZES, MemoryFrames, coloured, small_job, small_set

pytestmark = pytest.mark.timeout(600)
SMALL = ["--train.epochs", "2", "--train.text", "raw", "--train.batch-size", "8"]
ALONE = ["--train.workers", "1"]  # where it is not about two: half the processes to start


@pytest.fixture(scope="module")
def decoded(
    tmp_path_factory: pytest.TempPathFactory, catalogue: Path, local_ray: None
) -> Workspace:
    uri = str(tmp_path_factory.mktemp("train") / "workspace")
    assert main(["prepare", "--manifest", str(catalogue / "manifest.csv"), "--workspace", uri]) == 0
    assert main(["decode", "--workspace", uri]) == 0
    return Workspace.open(uri)


def test_two_workers_train_a_model_that_embeds(
    decoded: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--workspace", decoded.uri, *SMALL]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("train: 10 products done in")
    folder = decoded.fetch("models/ampere")
    settings = json.loads((folder / "settings.json").read_text("utf-8"))
    assert settings["train"]["workers"] == 2
    metrics = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    ]
    assert metrics[-1]["epoch"] == 2 and metrics[-1]["step"] == settings["scores"]["step"]
    # The weights, and the class centres of each rank.
    assert sorted(path.suffix for path in folder.iterdir()).count(".safetensors") == 3
    logs = Path(decoded.uri) / "logs" / "ampere"
    assert (logs / "metrics.jsonl").read_text("utf-8") == (folder / "metrics.jsonl").read_text(
        "utf-8"
    )
    assert any(path.name.startswith("events.out.tfevents") for path in logs.iterdir())
    ids = decoded.table(SAMPLES).read(["sample_id"])["sample_id"].to_pylist()[:6]
    vectors = Embedder(folder).embed(
        LanceFrames(decoded).take(ids),
        ["云岚薄荷洗发水", None, "", "x", None, None],
        [Domain.PAGE] * 6,
    )
    assert vectors.shape == (6, 128)
    assert abs((vectors**2).sum(axis=1) - 1).max() < 1e-5
    assert decoded.names("runs") == []


def test_only_training_products_are_trained_on(decoded: Workspace) -> None:
    settings = json.loads((decoded.fetch("models/ampere") / "settings.json").read_text("utf-8"))
    rows = decoded.table(SAMPLES).read(["product_id"], f"split = '{Split.TRAIN}'")
    assert settings["products"] == sorted(set(rows["product_id"].to_pylist()))


def test_the_same_training_is_not_repeated_and_another_one_is(
    decoded: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--workspace", decoded.uri, *SMALL]) == 0
    assert "train: 0 products done, 10 were done before" in capsys.readouterr().out
    assert (
        main(
            [
                "train",
                "--workspace",
                decoded.uri,
                *SMALL,
                *ALONE,
                "--train.seed",
                "1",
                "--train.loader-workers",
                "1",
            ]
        )
        == 0
    )
    assert "train: 10 products done" in capsys.readouterr().out


def test_a_network_with_its_own_weights_goes_all_the_way(
    decoded: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_clip(tmp_path)
    flags = ["--workspace", decoded.uri, "--preset", "demo+cn-clip-m0"]
    assert main(["train", *flags, *ALONE, "--model.weights", str(tmp_path)]) == 0
    for command in ("embed", "index", "evaluate"):
        assert main([command, *flags]) == 0, command
    assert "cn-clip-m0" in capsys.readouterr().out
    vectors = (
        decoded.table(EMBEDDINGS)
        .read(["vector"], "model LIKE 'cn-clip-m0@%'")["vector"]
        .to_pylist()
    )
    assert {len(vector) for vector in vectors} == {12}


def test_frames_alone_train_a_start_for_another_training(
    decoded: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = [
        "--train.name",
        "warm",
        "--train.supervision",
        "frames",
        "--train.text",
        "none",
        "--train.epochs",
        "1",
    ]
    assert main(["train", "--workspace", decoded.uri, *ALONE, *warm]) == 0
    settings = json.loads((decoded.fetch("models/warm") / "settings.json").read_text("utf-8"))
    ids = decoded.table(SAMPLES).read(["sample_id"])["sample_id"].to_pylist()
    assert settings["products"] == sorted(ids)  # those of the test split too: no label is read
    cold = ["--train.name", "cold", "--train.epochs", "0", "--train.text", "raw"]
    assert (
        main(["train", "--workspace", decoded.uri, *ALONE, *cold, "--train.start-from", "warm"])
        == 0
    )
    told = re.search(
        r"started from warm with (\d+) of (\d+) weights; begun anew, .*: (.*)",
        capsys.readouterr().out,
    )
    ours, theirs = (load_weights(decoded.fetch(f"models/{name}")) for name in ("cold", "warm"))
    taken = [name for name in ours if name in theirs and torch.equal(ours[name], theirs[name])]
    assert {name for name in ours if name.startswith("video.")} <= set(taken)
    assert (
        told
        and (int(told[1]), int(told[2])) == (len(taken), len(ours))
        and "fusion, no_text, text" in told[3]
    )
    assert main(["train", "--workspace", decoded.uri, "--train.start-from", "none"]) == 2


def test_a_start_on_training_frames_sees_no_picture_of_a_test_product(decoded: Workspace) -> None:
    settings = TrainSettings(supervision="training-frames", text="none")
    found, _ = training_data(decoded, LanceFrames(decoded), ModelSettings(), settings)
    ids = (
        decoded.table(SAMPLES)
        .read(["sample_id"], f"split = '{Split.TRAIN}'")["sample_id"]
        .to_pylist()
    )
    assert sorted(found.products) == sorted(ids)


def test_weights_that_cannot_be_had_stop_a_training_before_any_work(
    decoded: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--preset", "demo+mllm-0", "--model.weights", str(tmp_path)]
    assert main(["train", "--workspace", decoded.uri, *flags]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert "mllm-0" not in decoded.names("models") and decoded.names("runs") == []


def test_a_training_that_diverges_is_told_and_not_tried_again(
    decoded: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--train.name", "diverged", "--train.margin", "inf", "--train.log-every", "1"]
    assert main(["train", "--workspace", decoded.uri, *SMALL, *ALONE, *flags]) == 1
    told = capsys.readouterr().err
    assert (
        "the training of diverged ended: FloatingPointError: the loss became" in told
        and "by step 1;" in told
    )
    assert "diverged" not in decoded.names("models")


def test_ctrl_c_in_a_training_is_an_interrupt_and_its_handler_goes_with_it() -> None:
    def train() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as Ray Train puts its own there
        sys.exit(0)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible():
        train()
    assert signal.getsignal(signal.SIGINT) is before


def test_too_few_products_is_said_before_any_work(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--workspace", workspace.uri]) == 2
    assert "no frames yet; run `ampere decode` first" in capsys.readouterr().err


def test_what_a_sample_belongs_to_is_part_of_what_a_training_is_made_from(
    workspace: Workspace,
) -> None:
    """A corrected catalogue trains anew, though its products, samples and texts are the same."""
    training_set, frames = small_set(3)
    workspace.table(FRAMES).append(
        [
            {"sample_id": name, "fingerprint": "f", "frames": jpegs}
            for name, jpegs in frames.frames.items()
        ]
    )

    def made_from(products: Products, validation: Products) -> str:
        changed = dataclasses.replace(training_set, products=products, validation=validation)
        return training_fingerprint(
            LanceFrames(workspace), changed, SIZES, small_job(training_set).train, None
        )

    products = {product: dict(domains) for product, domains in training_set.products.items()}
    held_out = {"p02": products.pop("p02")}
    before = made_from(products, held_out)
    assert made_from(dict(reversed(products.items())), held_out) == before
    one, other = products["p00"], products["p01"]
    exchanged = {
        "p00": one | {Domain.LIVE: other[Domain.LIVE]},
        "p01": other | {Domain.LIVE: one[Domain.LIVE]},
    }
    moved = {
        "p00": one | {Domain.LIVE: one[Domain.SHORT], Domain.SHORT: one[Domain.LIVE]},
        "p01": other,
    }
    judged = {"p02": dict(zip(Domain, reversed(held_out["p02"].values()), strict=True))}
    found = [
        made_from(exchanged, held_out),
        made_from(moved, held_out),
        made_from(products, judged),
    ]
    assert len({before, *found}) == 4


def test_the_content_of_local_weights_is_part_of_what_a_training_is_made_from(
    workspace: Workspace, tmp_path: Path
) -> None:
    training_set, frames = small_set(2)
    workspace.table(FRAMES).append(
        [
            {"sample_id": name, "fingerprint": "f", "frames": jpegs}
            for name, jpegs in frames.frames.items()
        ]
    )
    file, folder = tmp_path / "k600.pth", tmp_path / "bert"
    folder.mkdir()
    changed = [file, folder / "model.safetensors", folder / "vocab.txt"]
    for path in changed:
        path.write_bytes(b"1")
    model = dataclasses.replace(SIZES, vision_weights=str(file), text_weights=str(folder))

    def made_from() -> str:
        train = small_job(training_set).train
        return training_fingerprint(LanceFrames(workspace), training_set, model, train, None)

    prints = {made_from()}
    for path in changed:
        path.write_bytes(b"2 ")
        prints.add(made_from())
    assert len(prints) == 1 + len(changed)


def test_a_training_takes_the_tokenizer_of_the_text_tower_that_it_starts_from(
    tmp_path: Path,
) -> None:
    training_set, _ = small_set(4)
    others = TrainingSet(products=training_set.products, texts={"x": "quite different words"})
    job, pictures = small_job(training_set), small_job(training_set, text="none")
    build_model(job).save_pretrained(tmp_path / "text", job.tokenizer)
    build_model(pictures).save_pretrained(tmp_path / "pictures", pictures.tokenizer)
    theirs, fresh = job.tokenizer.get_vocab(), tokenizer_for(others, SIZES, None).get_vocab()  # type: ignore[union-attr]
    assert theirs != fresh
    starts = {name: tokenizer_for(others, SIZES, tmp_path / name) for name in ("text", "pictures")}
    assert starts["text"].get_vocab() == theirs and starts["pictures"].get_vocab() == fresh  # type: ignore[union-attr]


def test_clips_of_another_number_of_frames_are_told_and_pictures_are_not() -> None:
    training_set, frames = small_set(2)
    frames.frames["short-00-0"] = coloured(0, 1)  # the first clip of all
    check_frame_count(training_set, frames, SIZES.num_frames)
    with pytest.raises(
        ValueError,
        match=r"decoded into 2 frames and the model reads 8; set --decode.num-frames and",
    ):
        check_frame_count(training_set, frames, 8)


class LostStore(MemoryFrames):
    """Frames in a place that cannot be reached."""

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        raise ConnectionResetError("the store is gone")


def work_of(job: TrainJob, frames: MemoryFrames) -> dict[str, Any]:
    return {"work": pickle.dumps((job, frames)), "queue": queue.Queue(), "source": None}


def test_a_worker_hands_back_what_would_come_again_and_raises_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray.train

    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(ray, "get", pickle.loads)
    training_set, frames = small_set(4)
    diverged = train_worker(work_of(small_job(training_set, margin=math.inf), frames))
    assert type(diverged) is FloatingPointError and "by step 1" in str(diverged)
    alone = dataclasses.replace(training_set, products={"p00": training_set.products["p00"]})
    refused = train_worker(work_of(small_job(alone), frames))
    assert type(refused) is ValueError and "1 training products" in str(refused)
    sizes = dataclasses.replace(SIZES, vision_weights="no/such.pth")
    lost = train_worker(work_of(dataclasses.replace(small_job(training_set), model=sizes), frames))
    assert isinstance(
        lost, OSError
    ) and "rank 0 cannot have the weights to start from: no/such.pth" in str(lost)
    with pytest.raises(KeyError):
        train_worker(work_of(small_job(training_set), MemoryFrames({})))
    with pytest.raises(ConnectionResetError):  # the store may be back at the next try
        train_worker(work_of(small_job(training_set), LostStore({})))


HERE = "0f" * 28  # a node of Ray


class Line(queue.Queue):
    """Stands for Ray's queue, which must be where the driver is."""

    def __init__(self, actor_options: dict[str, Any]) -> None:
        beside = actor_options["scheduling_strategy"]
        assert (beside.node_id, beside.soft) == (HERE, False)
        super().__init__()

    def shutdown(self) -> None:
        pass


def trained(
    outcome: Exception | None,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    raised: bool,
    trackers: tuple[str, ...] = (),
) -> object:
    """`train_on_ray`, where Ray Train ends with an error that it raises, or that the workers handed back."""
    import ray.train.torch
    import ray.util.queue

    def fit() -> SimpleNamespace:
        if raised and outcome is not None:
            raise outcome
        return SimpleNamespace(return_value=outcome)

    monkeypatch.setattr(train, "connect", lambda: None)

    def trainer(*_: object, train_loop_config: dict[str, Any], **__: object) -> SimpleNamespace:
        assert train_loop_config["work"] == "a reference"  # Ray Train copies this for every worker
        return SimpleNamespace(fit=fit)

    monkeypatch.setattr(ray, "put", lambda _: "a reference")
    monkeypatch.setattr(
        ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: HERE)
    )
    monkeypatch.setattr(train, "require_gpus", lambda *_: None)
    monkeypatch.setattr(ray.util.queue, "Queue", Line)
    monkeypatch.setattr(ray.train.torch, "TorchTrainer", trainer)
    training_set, frames = small_set(4)
    job = small_job(training_set, trackers=trackers)
    return train_on_ray(job, frames, str(folder), "run", Progress(job, None), folder)


def test_the_words_of_failed_workers_come_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.train import WorkerGroupError

    lost = WorkerGroupError(
        "two workers failed", {1: RuntimeError("connection closed"), 0: KeyError("page-7")}
    )
    words = "the training of ampere ended: worker 0: KeyError: 'page-7'; worker 1: RuntimeError: connection closed"
    with pytest.raises(RuntimeError, match=f"^{re.escape(words)}$"):
        trained(lost, tmp_path, monkeypatch, raised=True)
    with pytest.raises(
        RuntimeError, match="the training of ampere ended: FloatingPointError: the loss became nan"
    ):
        trained(FloatingPointError("the loss became nan"), tmp_path, monkeypatch, raised=False)
    with pytest.raises(ValueError, match=r"^give more products$"):
        trained(ValueError("give more products"), tmp_path, monkeypatch, raised=False)
    with pytest.raises(OSError, match=r"^rank 1 cannot have the weights$"):
        trained(OSError("rank 1 cannot have the weights"), tmp_path, monkeypatch, raised=False)


def test_a_tracker_that_cannot_start_stops_the_job_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Library(fails="init"))
    trainings = AssertionError("it was trained")
    with pytest.raises(RuntimeError, match="train.trackers names wandb, which cannot be started"):
        trained(trainings, tmp_path, monkeypatch, raised=True, trackers=("wandb",))


def fill(workspace: Workspace, training_set: TrainingSet, frames: MemoryFrames) -> None:
    """The tables that a training set is read from; clips have their text as transcript."""
    rows = [
        {
            "sample_id": name,
            "product_id": product,
            "domain": domain,
            "split": "train",
            "text": training_set.texts[name],
        }
        for product, domains in training_set.products.items()
        for domain, names in domains.items()
        for name in names
    ]
    workspace.table(SAMPLES).upsert(rows)
    workspace.table(FRAMES).append(
        [
            {"sample_id": name, "fingerprint": "f", "frames": jpegs}
            for name, jpegs in frames.frames.items()
        ]
    )


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """Four products, of which four shorts and four lives have a transcript."""
    fill(workspace, *small_set(4))
    return workspace


def test_speech_that_nobody_summarized_stops_a_training_before_any_work(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "train_on_ray", None)
    words = r"train.text is keybert and there are no summaries of method keybert; run `ampere summarize --summarize.meth"
    with pytest.raises(ValueError, match=words + ".* 8 clips have a transcript"):
        run_training(
            filled, SIZES, small_job(small_set(4)[0], text="keybert", validation_share=0.0).train
        )


def test_speech_that_is_half_summarized_is_told(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "train_on_ray", lambda *_: {"step": 1.0})
    filled.table(SUMMARIES).upsert(
        [
            {"sample_id": name, "method": "llm", "text": None}
            for name in ("short-00-1", "live-00-1", "short-02-1")
        ]
    )
    settings = small_job(small_set(4)[0], validation_share=0.0).train
    (note,) = run_training(filled, SIZES, settings).notes
    assert note.startswith(
        "train: 5 of 8 clips with a transcript have no row of method llm yet; they count as clips"
    )
    assert run_training(filled, SIZES, settings).notes == [note]  # also of a training that is done
    for text in ("raw", "none"):
        assert run_training(filled, SIZES, dataclasses.replace(settings, text=text)).notes == []  # type: ignore[arg-type]


def test_a_catalogue_without_speech_needs_no_summaries(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "train_on_ray", lambda *_: {"step": 1.0})
    training_set, frames = small_set(4)
    titles = {name: text if "page" in name else None for name, text in training_set.texts.items()}
    fill(workspace, dataclasses.replace(training_set, texts=titles), frames)
    assert (
        run_training(workspace, SIZES, small_job(training_set, validation_share=0.0).train).notes
        == []
    )


@pytest.mark.parametrize("name", ["k600.pth", "no-such-folder"])
def test_a_start_of_the_frame_tower_that_is_not_there_stops_a_training_before_any_work(
    filled: Workspace, tmp_path: Path, name: str
) -> None:
    sizes = dataclasses.replace(SIZES, vision_weights=str(tmp_path / name))
    with pytest.raises(OSError, match=name):
        run_training(filled, sizes, small_job(small_set(4)[0], text="none").train)
    assert filled.names("runs") == []
