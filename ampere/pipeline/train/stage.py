"""The train stage: which products it trains on, when it is up to date, and what it publishes."""

import dataclasses
import json
import re
import tempfile
import time
import zlib
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from ampere.config.embed import EmbedSettings
from ampere.config.model import ModelSettings
from ampere.config.train import TrainSettings
from ampere.fingerprint import fingerprint
from ampere.models.checkpoint import weight_shapes
from ampere.models.model_folder import (
    SETTINGS_FILE,
    content_hash,
    model_identity,
    stored_tower_name,
)
from ampere.models.networks import (
    check_weights,
    frozen_tower,
    input_size,
    pretrained_tokenizer,
    resolve_vision,
)
from ampere.models.tokenizer import build_tokenizer, load_tokenizer
from ampere.pipeline.features import train_features
from ampere.pipeline.runner.report import Report
from ampere.pipeline.train.ray_train import train_on_ray
from ampere.pipeline.train.trackers import Progress, check_trackers
from ampere.pipeline.train.worker import TrainInputs
from ampere.records import CLIP_DOMAINS, SAMPLES, Domain, Split
from ampere.store.features import LanceFeatures
from ampere.store.frames import LanceFrames, enlarged_note
from ampere.store.models import model_folder
from ampere.store.texts import chosen_model, missing_summary_warnings, texts_of
from ampere.store.workspace import Workspace
from ampere.text.normalize import normalize
from ampere.training.data import FeatureSource, FrameSource, TrainingSet
from ampere.training.frame_views import SEPARATOR, FrameViews, frame_training_set
from ampere.training.loop import TrainJob

# Settings of how a training runs, which are no part of its fingerprint. The result is as good, but
# not the same: rounding differs, and ranks and chunks draw their own dropout and sampled classes
# (docs/guides/training.md).
RUNTIME_ONLY_FIELDS = (
    "workers",
    "min_workers",
    "cpus",
    "gpus",
    "chunk_size",
    "gradient_checkpointing",
    "compile",
    "loader_workers",
    "log_every",
    "checkpoint_every",
    "retries",
    "trackers",
)
# Version of the networks, losses and training code: raise it with a change to what the same
# settings give.
TRAIN_VERSION = 3
CHECKED_CLIPS = 8  # several, because an image stored as a clip has one frame and shows nothing


def run_training(workspace: Workspace, model: ModelSettings, settings: TrainSettings) -> Report:
    """Train models/NAME, unless it is up to date with its samples, texts and settings.

    Raises:
        FileNotFoundError: there are no frames yet.
        ValueError: too few training products, settings that do not fit the tables, no summaries of
            the method in `train.text`, or a tracker is not installed.
        OSError: the weights in the settings are not found.
        RuntimeError: a tracker cannot start, or the training failed; the message has the workers'
            errors.
    """
    began = time.monotonic()
    settings = of_untrained(settings) if not settings.epochs else settings
    check_trackers(settings.trackers)
    check_weights(model)
    check_trainable(model, settings)
    # By name, so that it is the same training whether or not the settings name the only one.
    summary_model = chosen_model(workspace, settings.text, settings.summary_model)
    settings = dataclasses.replace(settings, summary_model=summary_model)
    # One version of the table for the whole training, even if `ampere decode` runs meanwhile.
    stored = LanceFrames(workspace)
    training_set, pictures = training_data(workspace, stored, model, settings)
    notes = missing_summary_warnings(
        workspace,
        "train",
        "train.text",
        settings.text,
        settings.summary_model,
        training_set.texts.keys(),
    )
    if model.use_vision:
        notes += enlarged_note("train", stored, settings.name, input_size(model))
    check_frame_count(training_set, pictures, model.num_frames)
    start = start_folder(workspace, settings.start_from)
    made_from = training_fingerprint(stored, training_set, model, settings, start)
    target, products = f"models/{settings.name}", len(training_set.products)
    where = f"{workspace.uri}/{target}"
    if trained_from(workspace.read_text(f"{target}/{SETTINGS_FILE}")) == made_from:
        return Report("train", where, skipped=products, notes=notes, unit="products")
    job = TrainJob(
        training_set=training_set,
        tokenizer=tokenizer_for(training_set, model, start),
        model=model,
        train=settings,
    )
    frames: FrameSource | FeatureSource = pictures
    if settings.epochs and (tower := frozen_tower(resolve_vision(model)[0])):
        frames = training_features(workspace, tower, model, settings, training_set, stored)
    start_from = (workspace.uri, f"models/{settings.start_from}") if settings.start_from else None
    inputs = TrainInputs(job=job, frames=frames, start_from=start_from)
    notes += train_and_publish(workspace, inputs, made_from, start)
    seconds = time.monotonic() - began
    return Report("train", where, done=products, seconds=seconds, notes=notes, unit="products")


def training_features(
    workspace: Workspace,
    tower: str,
    model: ModelSettings,
    settings: TrainSettings,
    training_set: TrainingSet,
    stored: LanceFrames,
) -> LanceFeatures:
    """Store a frozen tower's features of the training and validation samples, and open them.

    Raises:
        RuntimeError: some samples have no features.
    """
    pool = EmbedSettings(
        workers=f"{settings.fewest_workers}:{settings.workers}",
        cpus=settings.cpus,
        gpus=settings.gpus,
        bf16=settings.bf16,
    )
    name = stored_tower_name(tower, bf16=settings.bf16)
    report = train_features(
        workspace, name, resolve_vision(model)[0], training_set.texts.keys(), pool, stored
    )
    if report.done:
        print(report, flush=True)
    return LanceFeatures(workspace, name, stored)


def check_trainable(model: ModelSettings, settings: TrainSettings) -> None:
    """Raise ValueError if a network without trainable weights is to be trained.

    Or if a frozen tower is to learn from frames alone, whose features would be equal.
    """
    if model.freeze_vision and settings.supervision != "products":
        raise ValueError(
            f"train.supervision is {settings.supervision} and model.freeze_vision is True; frames "
            "teach a vision tower, so set --model.no-freeze-vision"
        )
    if settings.epochs and model.network == "mllm" and not model.linear_layer:
        raise ValueError(
            f"model.network mllm has no weights to train without its linear layer, and "
            f"train.epochs is {settings.epochs}. Set --train.epochs 0 or --model.linear-layer"
        )


def of_untrained(settings: TrainSettings) -> TrainSettings:
    """Settings of 0 epochs, which run on one CPU worker whatever the preset asks for."""
    return dataclasses.replace(settings, workers=1, min_workers=0, gpus=0.0)


def train_and_publish(
    workspace: Workspace, inputs: TrainInputs, made_from: str, start: Path | None
) -> list[str]:
    """Train on Ray, publish models/NAME, and return notes on the result.

    Args:
        workspace: where the model is published.
        inputs: of the training.
        made_from: its fingerprint.
        start: local folder of the model it starts from, if any.
    """
    settings = inputs.job.train
    logs = Path(workspace.uri) / "logs" / settings.name if workspace.is_local else None
    progress = Progress(inputs.job, logs)
    lock = workspace.lock(f"models-{settings.name}")
    with lock, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scores = train_on_ray(
            inputs,
            progress,
            storage=f"{workspace.uri}/runs",
            # A rerun resumes the run of its fingerprint; other settings start another run.
            run=f"{settings.name}-{made_from}",
            folder=folder,
        )
        write_settings(folder, inputs.job, made_from, scores)
        workspace.publish(folder, f"models/{settings.name}", last=SETTINGS_FILE)
        remove_runs(workspace, settings.name)
        notes = [start_note(settings.start_from, start, folder)] if start is not None else []
    return notes + result_notes(progress, scores)


def training_data(
    workspace: Workspace, frames: LanceFrames, model: ModelSettings, settings: TrainSettings
) -> tuple[TrainingSet, FrameSource]:
    """Read the training set that `train.supervision` asks for, and the frames that go with it."""
    decoded = set(frames.dataset().to_table(columns=["sample_id"])["sample_id"].to_pylist())
    if settings.supervision == "products":
        training_set = read_training_set(workspace, decoded, settings)
        check_enough(training_set, settings)
        return training_set, frames
    split = None if settings.supervision == "frames" else pc.field("split") == Split.TRAIN
    samples = workspace.table(SAMPLES).read(["sample_id", "domain"], split).sort_by("sample_id")
    counts = [
        (row["sample_id"], 1 if row["domain"] == Domain.PAGE else model.num_frames)
        for row in samples.to_pylist()
        if row["sample_id"] in decoded
    ]
    training_set = frame_training_set(counts)
    check_enough(training_set, settings)
    return training_set, FrameViews(frames, model.num_frames)


def check_enough(training_set: TrainingSet, settings: TrainSettings) -> None:
    """Check that every worker has two products, before the workers start; 0 epochs need none.

    Raises:
        ValueError: the catalog has fewer, or validation holds out too many.
    """
    left, held_out = len(training_set.products), len(training_set.validation)
    needed = 2 * settings.workers
    if left >= needed or not settings.epochs:
        return
    expected = f"expected at least {needed} (2 for each of train.workers, {settings.workers})"
    if settings.supervision != "products":
        raise ValueError(
            f"too few decoded samples to train on: {left}; {expected}. Check that `ampere decode` "
            "has finished"
        )
    if settings.data_share < 1:
        raise ValueError(
            f"train.data-share {settings.data_share:g} leaves {left} training products; "
            f"{expected}. Raise --train.data-share"
        )
    domains = ", ".join(settings.domains)
    if left + held_out < needed:
        raise ValueError(
            f"too few training products with decoded samples of two domains (of {domains}): "
            f"{left + held_out}; {expected}. Check product_id, domain and split in the manifest, "
            "--train.domains, and that `ampere decode` has finished"
        )
    raise ValueError(
        f"train.validation-share {settings.validation_share:g} holds out {held_out} of the "
        f"{left + held_out} training products with samples of two domains, which leaves {left}; "
        f"{expected}. Lower --train.validation-share"
    )


def start_folder(workspace: Workspace, name: str) -> Path | None:
    """Return the folder of the model to start from; None for an empty name.

    Raises:
        FileNotFoundError: the workspace has no such model.
    """
    return model_folder(workspace, name) if name else None


def check_frame_count(training_set: TrainingSet, frames: FrameSource, num_frames: int) -> None:
    """Raise ValueError if clips have another number of frames than the model reads.

    Clips that are stored as one image are accepted.
    """
    clips = (
        domains[domain][0]
        for domains in training_set.products.values()
        for domain in CLIP_DOMAINS
        if domain in domains
    )
    for stored in frames.take(list(islice(clips, CHECKED_CLIPS))):
        if len(stored) not in (1, num_frames):
            raise ValueError(
                f"wrong number of frames per clip: {len(stored)}; expected {num_frames} "
                "(model.num_frames). Set --decode.num-frames and --model.num-frames to the same "
                "number."
            )


def read_training_set(
    workspace: Workspace, decoded: Collection[str], settings: TrainSettings
) -> TrainingSet:
    """Read the training split's products that have decoded samples in two domains or more."""
    rows = workspace.table(SAMPLES).read(
        ["sample_id", "product_id", "domain"],
        (pc.field("split") == Split.TRAIN) & pc.field("product_id").is_valid(),
    )
    grouped: dict[str, dict[Domain, list[str]]] = {}
    for row in rows.sort_by("sample_id").to_pylist():
        if row["sample_id"] in decoded and row["domain"] in settings.domains:
            domains = grouped.setdefault(row["product_id"], {})
            domains.setdefault(Domain(row["domain"]), []).append(row["sample_id"])
    products = {product: domains for product, domains in grouped.items() if len(domains) > 1}
    share = settings.validation_share
    places = {name: place(name) for name in products}
    end = share + settings.data_share * (1 - share)
    validation = {name: products[name] for name in products if places[name] < share}
    products = {name: products[name] for name in products if share <= places[name] < end}
    used = list(sample_ids([*products.values(), *validation.values()]))
    texts = texts_of(workspace, settings.text, used, settings.summary_model)
    return TrainingSet(
        texts=dict(zip(used, texts.to_pylist(), strict=True)),
        validation=validation,
        products=products,
    )


def place(product: str) -> float:
    """Place of a product between 0 and 1, by checksum: random-looking, and the same in every run.

    A product keeps its place when the catalog grows. Validation takes the first places and training
    those behind them. Two checksums with different prefixes would not do: CRC-32 is linear, so for
    ids of one length they differ by a constant, and the two choices would not be independent.
    """
    return zlib.crc32(f"validation {product}".encode()) / 2**32


def sample_ids(products: Iterable[Any]) -> Iterable[str]:
    """Iterate over all sample ids of products' domains."""
    return (sample_id for domains in products for ids in domains.values() for sample_id in ids)


def training_fingerprint(
    frames: LanceFrames,
    training_set: TrainingSet,
    model: ModelSettings,
    settings: TrainSettings,
    start: Path | None,
) -> str:
    """Fingerprint all inputs of a training: samples, frames, texts, settings, code, weights."""
    rows = frames.dataset().to_table(columns=["sample_id", "fingerprint"])
    stored = dict(zip(rows["sample_id"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))
    views = settings.supervision != "products"  # the ids are of views: of a sample and a frame
    inputs = [
        [name, stored[name.rsplit(SEPARATOR, 1)[0] if views else name], text]
        for name, text in sorted(training_set.texts.items())
    ]
    train_fields = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in RUNTIME_ONLY_FIELDS
    }
    # Weights by content: a path stays the same when its file changes.
    identities = {
        name: model_identity(getattr(model, name))
        for name in ("weights", "vision_weights", "text_weights")
    }
    return fingerprint(
        TRAIN_VERSION,
        # In full: a corrected catalog may move a sample to another product or domain.
        training_set.products,
        training_set.validation,
        inputs,
        dataclasses.asdict(model) | identities,
        train_fields,
        content_hash(start) if start else "",
    )


def trained_from(settings: str | None) -> str | None:
    """Return the training fingerprint in a model's settings.json; None if there is none."""
    return json.loads(settings).get("fingerprint") if settings else None


def tokenizer_for(
    training_set: TrainingSet, model: ModelSettings, start: Path | None
) -> PreTrainedTokenizerBase | None:
    """Choose the tokenizer.

    It is that of the pretrained weights. AMPere without such weights takes that of the text tower
    it starts from, or else a new one, built from the training texts.
    """
    pretrained = pretrained_tokenizer(model)
    if pretrained is not None or model.network != "ampere":
        return pretrained
    # Word embeddings are copied by shape; they only fit words of their own vocabulary.
    if start is not None and has_text_tower(start):
        return load_tokenizer(start)
    return build_tokenizer(normalize(text) for text in training_set.texts.values() if text)


def has_text_tower(folder: Path) -> bool:
    """Whether a folder's AMPere reads text; one that reads images alone has a tokenizer too."""
    return any(name.startswith("text.") for name in weight_shapes(folder))


def write_settings(folder: Path, job: TrainJob, made_from: str, scores: dict[str, float]) -> None:
    """Write settings.json: the resolved settings, the training's fingerprint and its scores."""
    facts = {
        "model": dataclasses.asdict(job.model),
        "train": dataclasses.asdict(job.train),
        "fingerprint": made_from,
        "products": sorted(job.training_set.products),
        "scores": scores,
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")


def remove_runs(workspace: Workspace, name: str) -> None:
    """Delete the checkpoints of a model's runs, also of runs with other settings."""
    for run in workspace.names("runs"):
        if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}", run):
            workspace.remove(f"runs/{run}")


def start_note(name: str, start: Path, trained: Path) -> str:
    """Report how many weights a model took from its start, and which parts are new."""
    theirs, ours = weight_shapes(start), weight_shapes(trained)
    new = {weight.split(".")[0] for weight, shape in ours.items() if theirs.get(weight) != shape}
    copied = sum(theirs.get(weight) == shape for weight, shape in ours.items())
    parts = f"; newly initialized, at least in part: {', '.join(sorted(new))}" if new else ""
    return f"train: started from {name} with {copied} of {len(ours)} weights{parts}"


def result_notes(progress: Progress, scores: dict[str, float]) -> list[str]:
    """Report the last metrics and the best validation score."""
    notes = []
    if last := progress.last():
        notes.append(f"train: last metrics: {last}")
    if "validation_mR1" in scores:
        best = f"mR1 {scores['validation_mR1']:.1f} at step {scores['step']}"
        notes.append(f"train: best validation score: {best}")
    return notes
