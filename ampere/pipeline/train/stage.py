"""The train stage: Ray Train runs the plain loop of ampere.training on its workers, joined by DDP."""

import dataclasses
import json
import re
import signal
import tempfile
import threading
import time
import zlib
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ampere.cluster import connect, require_gpus
from ampere.config.model import ModelSettings
from ampere.config.train import TrainSettings
from ampere.models.checkpoint import weight_shapes
from ampere.models.model_folder import SETTINGS_FILE, content_hash, model_identity
from ampere.models.networks import check_weights, pretrained_tokenizer
from ampere.models.tokenizer import build_tokenizer, load_tokenizer
from ampere.pipeline.runner.plan import fingerprint
from ampere.pipeline.runner.report import Report
from ampere.pipeline.train.trackers import Progress, check_trackers
from ampere.pipeline.train.worker import SCORES_FILE, train_worker
from ampere.records import CLIP_DOMAINS, SAMPLES, Domain, Split
from ampere.store.frames import LanceFrames
from ampere.store.models import model_folder
from ampere.store.texts import sample_texts, text_notes
from ampere.store.workspace import Workspace
from ampere.training.data import FrameSource, TrainingSet
from ampere.training.frame_views import MARK, FrameViews, frame_training_set
from ampere.training.loop import TrainJob

# Settings of how a training runs. Its result stays as good, though not the same: it rounds otherwise, and ranks and
# chunks draw dropout and sampled classes for themselves (docs/training.md).
HOW = ("workers", "cpus", "gpus", "chunk_size", "gradient_checkpointing", "compile", "loader_workers", "log_every",
       "checkpoint_every", "retries", "trackers")  # fmt: skip
# Stands for the code of networks, losses and training: raise it with a change to what comes of the same settings.
TRAIN_VERSION = 2
CHECKED_CLIPS = 8  # the first may be a picture, which tells nothing


def run_training(workspace: Workspace, model: ModelSettings, settings: TrainSettings) -> Report:
    """Train models/NAME, unless it was trained on just these samples, texts and settings.

    Raises:
        FileNotFoundError: there are no frames yet.
        ValueError: too few training products, settings that do not fit the tables, no summaries of the method whose
            text is to be read, or a tracker is not installed.
        OSError: the weights that the settings name cannot be had.
        RuntimeError: a tracker cannot be started, or the training itself failed; the message has the workers' own
            errors.
    """
    began = time.monotonic()
    check_trackers(settings.trackers)
    check_weights(model)
    stored = LanceFrames(
        workspace
    )  # one version of them for all that follows, though `ampere decode` may go on
    training_set, frames = training_data(workspace, stored, model, settings)
    notes = text_notes(workspace, "train", "train.text", settings.text, training_set.texts.keys())
    check_frame_count(training_set, frames, model.num_frames)
    start = start_folder(workspace, settings.start_from)
    made_from = training_fingerprint(stored, training_set, model, settings, start)
    target = f"models/{settings.name}"
    products = len(training_set.products)
    if trained_from(workspace.read_text(f"{target}/{SETTINGS_FILE}")) == made_from:
        return Report(
            "train", f"{workspace.uri}/{target}", skipped=products, notes=notes, unit="products"
        )
    job = TrainJob(
        training_set=training_set,
        tokenizer=tokenizer_for(training_set, model, start),
        model=model,
        train=settings,
    )
    with workspace.lock(target.replace("/", "-")), tempfile.TemporaryDirectory() as folder:
        progress = Progress(
            job, Path(workspace.uri) / "logs" / settings.name if workspace.is_local else None
        )
        # The run's name tells what it is made from: a rerun goes on with it, and one of other settings does not.
        run = f"{settings.name}-{made_from}"
        # Every worker fetches the weights to start from: what the driver has may lie on its machine alone.
        source = (workspace.uri, f"models/{settings.start_from}") if settings.start_from else None
        scores = train_on_ray(
            job, frames, f"{workspace.uri}/runs", run, progress, Path(folder), source
        )
        facts = {
            "model": dataclasses.asdict(model),
            "train": dataclasses.asdict(settings),
            "fingerprint": made_from,
            "products": sorted(training_set.products),
            "scores": scores,
        }
        (Path(folder) / SETTINGS_FILE).write_text(
            json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8"
        )
        where = workspace.publish(Path(folder), target, last=SETTINGS_FILE)
        remove_runs(workspace, settings.name)
        notes += [start_note(settings.start_from, start, Path(folder))] if start else []
    notes += ["train: last " + progress.last()] if progress.last() else []
    if "validation_mR1" in scores:
        best = f"mR1 {scores['validation_mR1']:.1f} at step {scores['step']}"
        notes.append(f"train: best on the validation products: {best}")
    return Report(
        "train",
        where,
        done=products,
        seconds=time.monotonic() - began,
        notes=notes,
        unit="products",
    )


def training_data(
    workspace: Workspace, frames: LanceFrames, model: ModelSettings, settings: TrainSettings
) -> tuple[TrainingSet, FrameSource]:
    """What the settings' supervision makes of the tables."""
    decoded = set(frames.dataset().to_table(columns=["sample_id"])["sample_id"].to_pylist())
    if settings.supervision == "products":
        return read_training_set(workspace, decoded, settings), frames
    chosen = None if settings.supervision == "frames" else f"split = '{Split.TRAIN}'"
    rows = (
        workspace.table(SAMPLES)
        .read(["sample_id", "domain"], chosen)
        .sort_by("sample_id")
        .to_pylist()
    )
    counts = [
        (row["sample_id"], 1 if row["domain"] == Domain.PAGE else model.num_frames)
        for row in rows
        if row["sample_id"] in decoded
    ]
    return frame_training_set(counts), FrameViews(frames, model.num_frames)


def start_folder(workspace: Workspace, name: str) -> Path | None:
    """Folder of the model that a training starts from.

    Raises:
        FileNotFoundError: the workspace has no such model.
    """
    return model_folder(workspace, name) if name else None


def start_note(name: str, start: Path, trained: Path) -> str:
    """What a model took from the one that it started from, and which of its parts began anew."""
    theirs, ours = weight_shapes(start), weight_shapes(trained)
    new = {weight.split(".")[0] for weight, shape in ours.items() if theirs.get(weight) != shape}
    taken = sum(theirs.get(weight) == shape for weight, shape in ours.items())
    anew = f"; begun anew, in whole or in part: {', '.join(sorted(new))}" if new else ""
    return f"train: started from {name} with {taken} of {len(ours)} weights{anew}"


def check_frame_count(training_set: TrainingSet, frames: FrameSource, num_frames: int) -> None:
    """Raise ValueError if clips were decoded into another number of frames than the model reads; pictures have one."""
    clips = (
        domains[d][0]
        for domains in training_set.products.values()
        for d in CLIP_DOMAINS
        if d in domains
    )
    for stored in frames.take(list(islice(clips, CHECKED_CLIPS))):
        if len(stored) not in (1, num_frames):
            raise ValueError(
                f"clips were decoded into {len(stored)} frames and the model reads {num_frames}; set "
                "--decode.num-frames and --model.num-frames to the same number"
            )


def read_training_set(
    workspace: Workspace, decoded: Collection[str], settings: TrainSettings
) -> TrainingSet:
    """The training split's products of two domains or more, counting only samples that have frames."""
    rows = workspace.table(SAMPLES).read(
        ["sample_id", "product_id", "domain"], f"split = '{Split.TRAIN}' AND product_id IS NOT NULL"
    )
    products: dict[str, dict[Domain, list[str]]] = {}
    for row in rows.sort_by("sample_id").to_pylist():
        if row["sample_id"] in decoded and row["domain"] in settings.domains:
            products.setdefault(row["product_id"], {}).setdefault(Domain(row["domain"]), []).append(
                row["sample_id"]
            )
    products = {product: domains for product, domains in products.items() if len(domains) > 1}
    validation = {product for product in products if validates(product, settings.validation_share)}
    texts = sample_texts(workspace, settings.text)
    return TrainingSet(
        products={
            product: domains for product, domains in products.items() if product not in validation
        },
        texts={sample_id: texts.get(sample_id) for sample_id in sample_ids(products.values())},
        validation={product: products[product] for product in validation},
    )


def validates(product: str, share: float) -> bool:
    """Whether a product is one of the share that judges; the same in every run and in a grown catalogue."""
    return zlib.crc32(f"validation {product}".encode()) / 2**32 < share


def sample_ids(products: Iterable[Any]) -> Iterable[str]:
    """All sample ids of products' domains."""
    return (sample_id for domains in products for ids in domains.values() for sample_id in ids)


def training_fingerprint(
    frames: LanceFrames,
    training_set: TrainingSet,
    model: ModelSettings,
    settings: TrainSettings,
    start: Path | None,
) -> str:
    """A name of all that a training depends on: samples, frames, texts, settings, code, the weights it starts from."""
    prints = frames.dataset().to_table(columns=["sample_id", "fingerprint"])
    made_from = dict(
        zip(prints["sample_id"].to_pylist(), prints["fingerprint"].to_pylist(), strict=True)
    )
    stored = {name: made_from[name if settings.supervision == "products" else name.rsplit(MARK, 1)[0]]
              for name in training_set.texts}  # fmt: skip
    inputs = [[name, stored[name], text] for name, text in sorted(training_set.texts.items())]
    made_by = {
        name: value for name, value in dataclasses.asdict(settings).items() if name not in HOW
    }
    started = content_hash(start) if start else ""
    named = {
        name: model_identity(getattr(model, name))
        for name in ("weights", "vision_weights", "text_weights")
    }
    # The whole of it, since a corrected catalogue may move a sample to another product or domain.
    products = (training_set.products, training_set.validation)
    return fingerprint(
        TRAIN_VERSION, *products, inputs, dataclasses.asdict(model) | named, made_by, started
    )


def trained_from(settings: str | None) -> str | None:
    """The fingerprint of the training that made a model, by its settings.json; None where there is none."""
    return json.loads(settings).get("fingerprint") if settings else None


def tokenizer_for(
    training_set: TrainingSet, model: ModelSettings, start: Path | None
) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the pretrained weights; for AMPere without any, that of the text tower that it starts from, or
    one of the training texts."""
    found = pretrained_tokenizer(model)
    if found is not None or model.network != "ampere":
        return found
    # Word embeddings are copied by their shape, and mean the same words in their own vocabulary alone.
    if start is not None and has_text_tower(start):
        return load_tokenizer(start)
    return build_tokenizer(text for text in training_set.texts.values() if text)


def has_text_tower(folder: Path) -> bool:
    """Whether a folder is of an AMPere that reads text; one that sees pictures alone has a tokenizer too."""
    return any(name.startswith("text.") for name in weight_shapes(folder))


def train_on_ray(
    job: TrainJob,
    frames: FrameSource,
    storage: str,
    run: str,
    progress: Progress,
    folder: Path,
    source: tuple[str, str] | None = None,
) -> dict[str, float]:
    """Run the training on Ray workers, put the model into `folder`, and return its scores.

    A run of that name that was stopped goes on from its last checkpoint, on any number of workers.

    Args:
        storage: where workers keep checkpoints during the run; a folder that all of them see, or a cloud URI.
        source: workspace and model folder in it whose weights to start from, if any.

    Raises:
        ValueError: the settings do not fit the training set or each other.
        OSError: a worker cannot have the weights that the settings name.
        RuntimeError: the training failed, at once or as often as it was tried, or a tracker cannot be started.
    """
    connect()
    import ray
    from ray.train import (
        CheckpointConfig,
        FailureConfig,
        RunConfig,
        ScalingConfig,
        TrainingFailedError,
    )
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    settings = job.train
    require_gpus(settings.workers * settings.gpus, "train.gpus")
    # Beside the driver, which alone reads it: on a machine that goes, it would end each further try.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    per_worker = {"CPU": settings.cpus} | ({"GPU": settings.gpus} if settings.gpus else {})
    trainer = TorchTrainer(
        train_worker,
        # By reference: Ray Train keeps several copies of this, in the controller and for each worker.
        train_loop_config={"work": ray.put((job, frames)), "queue": queue, "source": source},
        torch_config=TorchConfig(backend="nccl" if settings.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers, use_gpu=settings.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=run,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=settings.retries),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    started: Future[None] = Future()
    watcher = threading.Thread(target=progress.watch, args=(queue, started), daemon=True)
    watcher.start()
    try:
        started.result()  # a tracker that cannot start stops the job here, before hours of training without it
        with interruptible():
            result = trainer.fit()
    except TrainingFailedError as error:
        raise RuntimeError(
            f"the training of {settings.name} ended: {worker_errors(error)}"
        ) from error
    finally:
        queue.put(None)
        watcher.join()
        queue.shutdown()
    failed = result.return_value  # of rank 0; see train_worker
    if isinstance(failed, (ValueError, OSError)):
        raise failed
    if failed is not None:
        raise RuntimeError(f"the training of {settings.name} ended: {error_words(failed)}")
    assert result.checkpoint is not None
    result.checkpoint.to_directory(folder)
    return json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt as elsewhere, and so it is afterwards.

    Ray Train answers it by SystemExit, and leaves its own handler behind, which would swallow what comes later.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stopped:
        raise KeyboardInterrupt from stopped
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def worker_errors(error: Exception) -> str:
    """What the workers of a failed training raised; what Ray Train says, if it was not they who failed."""
    failures = getattr(error, "worker_failures", {})
    told = [f"worker {rank}: {error_words(failure)}" for rank, failure in sorted(failures.items())]
    return "; ".join(told) or str(error)


def error_words(error: Exception) -> str:
    """An error's type and message."""
    return f"{type(error).__name__}: {error}"


def remove_runs(workspace: Workspace, name: str) -> None:
    """Delete the checkpoints of a model's trainings, also of those that were given up for other settings."""
    for run in workspace.names("runs"):
        if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}", run):
            workspace.remove(f"runs/{run}")
