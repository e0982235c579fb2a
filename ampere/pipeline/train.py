"""The train stage: Ray Train runs the plain loop of ampere.training on its workers, joined by DDP."""

import dataclasses
import json
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ampere.config import ModelSettings, TrainSettings
from ampere.models.embedder import SETTINGS_FILE
from ampere.models.tokenizer import build_tokenizer
from ampere.pipeline.cluster import connect
from ampere.pipeline.frames_table import LanceFrames
from ampere.pipeline.plan import fingerprint
from ampere.pipeline.report import Report
from ampere.pipeline.texts import sample_texts
from ampere.pipeline.train_worker import train_worker
from ampere.records import EMBEDDING_DIM, FRAMES, SAMPLES, Domain, Split
from ampere.training.data import CLIP_DOMAINS, TrainingSet
from ampere.training.loop import TrainJob
from ampere.workspace import Workspace


def run_training(workspace: Workspace, model: ModelSettings, settings: TrainSettings) -> Report:
    """Train models/NAME, unless it was trained on just these samples, texts and settings.

    Raises:
        FileNotFoundError: there are no frames yet.
        ValueError: too few training products, or settings that do not fit the tables.
    """
    start = time.monotonic()
    if model.embedding_dim != EMBEDDING_DIM:
        raise ValueError(f"model.embedding_dim is {model.embedding_dim}; the tables hold vectors of {EMBEDDING_DIM}")
    frames = LanceFrames(workspace)
    training_set = read_training_set(workspace, settings)
    check_frame_count(training_set, frames, model.num_frames)
    made_from = training_fingerprint(workspace, training_set, model, settings)
    target = f"models/{settings.name}"
    products = len(training_set.products)
    if settings.name in workspace.names("models") and trained_from(workspace.fetch(target)) == made_from:
        return Report("train", f"{workspace.uri}/{target}", skipped=products, unit="products")
    job = TrainJob(training_set=training_set, tokenizer=tokenizer_for(training_set, model), model=model, train=settings)
    with workspace.lock(target.replace("/", "-")), tempfile.TemporaryDirectory() as folder:
        losses = train_on_ray(job, frames, f"{workspace.uri}/runs", Path(folder))
        facts = {
            "model": dataclasses.asdict(model),
            "train": dataclasses.asdict(settings),
            "fingerprint": made_from,
            "products": sorted(training_set.products),
            "losses": losses,
        }
        (Path(folder) / SETTINGS_FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")
        where = workspace.publish(Path(folder), target)
    note = "train: last losses " + ", ".join(f"{k} {v:.3f}" for k, v in losses[-1].items() if k != "epoch")
    return Report("train", where, done=products, seconds=time.monotonic() - start, notes=[note], unit="products")


def check_frame_count(training_set: TrainingSet, frames: LanceFrames, num_frames: int) -> None:
    """Raise ValueError if the clips were decoded into another number of frames than the model reads."""
    clips = (domains[d][0] for domains in training_set.products.values() for d in CLIP_DOMAINS if d in domains)
    for stored in frames.take(list(islice(clips, 1))):
        if len(stored) != num_frames:
            raise ValueError(
                f"clips were decoded into {len(stored)} frames and the model reads {num_frames}; set "
                "--decode.num-frames and --model.num-frames to the same number"
            )


def read_training_set(workspace: Workspace, settings: TrainSettings) -> TrainingSet:
    """The training split's products of two domains or more, counting only samples that have frames."""
    decoded = set(workspace.table(FRAMES).read(["sample_id"])["sample_id"].to_pylist())
    rows = workspace.table(SAMPLES).read(
        ["sample_id", "product_id", "domain"], f"split = '{Split.TRAIN}' AND product_id IS NOT NULL"
    )
    products: dict[str, dict[Domain, list[str]]] = {}
    for row in rows.sort_by("sample_id").to_pylist():
        if row["sample_id"] in decoded:
            products.setdefault(row["product_id"], {}).setdefault(Domain(row["domain"]), []).append(row["sample_id"])
    products = {product: domains for product, domains in products.items() if len(domains) > 1}
    texts = sample_texts(workspace, settings.text)
    used = [sample_id for domains in products.values() for ids in domains.values() for sample_id in ids]
    return TrainingSet(products=products, texts={sample_id: texts[sample_id] for sample_id in used})


def training_fingerprint(
    workspace: Workspace, training_set: TrainingSet, model: ModelSettings, settings: TrainSettings
) -> str:
    """A name of all that a training depends on: samples, frames, texts, settings."""
    frames = workspace.table(FRAMES).read(["sample_id", "fingerprint"])
    made_from = dict(zip(frames["sample_id"].to_pylist(), frames["fingerprint"].to_pylist(), strict=True))
    inputs = [[sample_id, made_from[sample_id], text] for sample_id, text in sorted(training_set.texts.items())]
    return fingerprint(sorted(training_set.products), inputs, dataclasses.asdict(model), dataclasses.asdict(settings))


def trained_from(folder: Path) -> str | None:
    """The fingerprint of the training that made a model folder."""
    return json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")).get("fingerprint")


def tokenizer_for(training_set: TrainingSet, model: ModelSettings) -> PreTrainedTokenizerBase:
    """The tokenizer of the pretrained text tower, or one of the training texts."""
    if model.text_weights:
        return AutoTokenizer.from_pretrained(model.text_weights)
    return build_tokenizer(text for text in training_set.texts.values() if text)


def train_on_ray(job: TrainJob, frames: LanceFrames, storage: str, folder: Path) -> list[dict[str, float]]:
    """Run the training on Ray workers, put the model into `folder`, and return the losses of each epoch.

    Args:
        storage: where workers keep checkpoints during the run; a folder that all of them see, or a cloud URI.
    """
    connect()
    import fsspec
    from ray import cloudpickle
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.queue import Queue

    queue = Queue(actor_options={"num_cpus": 0})
    settings = job.train
    per_worker = {"CPU": settings.cpus} | ({"GPU": settings.gpus} if settings.gpus else {})
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"work": cloudpickle.dumps((job, frames)), "queue": queue},
        torch_config=TorchConfig(backend="nccl" if settings.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers, use_gpu=settings.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(name=settings.name, storage_path=storage),
    )
    losses: list[dict[str, float]] = []
    watcher = threading.Thread(target=show_progress, args=(queue, settings, losses), daemon=True)
    watcher.start()
    try:
        result = trainer.fit()
    finally:
        queue.put(None)
        watcher.join()
        queue.shutdown()
    assert result.checkpoint is not None
    result.checkpoint.to_directory(folder)
    fs, path = fsspec.core.url_to_fs(f"{storage}/{settings.name}")
    fs.rm(path, recursive=True)
    return losses


def show_progress(queue: Any, settings: TrainSettings, losses: list[dict[str, float]]) -> None:
    """Collect the epochs' losses that the first rank reports, and show them in a bar, until None comes."""
    with tqdm(
        total=settings.epochs, desc=f"train-{settings.name}", unit="epoch", file=sys.stderr, mininterval=1.0
    ) as bar:
        while (epoch := queue.get()) is not None:
            losses.append(epoch)
            shown = {name: f"{value:.3f}" for name, value in epoch.items() if name != "epoch"}
            bar.set_postfix(shown, refresh=False)
            bar.update()
