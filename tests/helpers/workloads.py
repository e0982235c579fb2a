"""Work of the stages that takes some seconds, and a check that nothing of it is lost or doubled."""

import json
import random
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import torch

from ampere.cli import main
from ampere.config.transcribe import SAMPLE_RATE
from ampere.media.audio import decode_audio
from ampere.models.model_folder import SETTINGS_FILE, embedding_name
from ampere.pipeline.train.worker import METRICS_FILE
from ampere.records import FAILURES, FRAMES, SAMPLES, SUMMARIES, TRANSCRIPTS, TableSpec
from ampere.store.embeddings import embeddings_spec
from ampere.store.table import Table
from ampere.store.workspace import Workspace
from ampere.synthetic.products import demo_products
from ampere.synthetic.speech import recognize, say
from ampere.training.loop import TrainJob, build_model
from tests.helpers.audio import write_wav
from tests.helpers.catalogs import manifest_rows, write_manifest
from tests.helpers.processes import ids
from tests.helpers.speech_models import write_faster_whisper, write_whisper
from tests.helpers.training import small_job, small_set

SPEECH = Path(__file__).parents[1] / "data" / "speech"


@dataclass(frozen=True)
class Workload:
    """A stage with rows to process on two nodes of one CPU each.

    Attributes:
        stage: its command.
        workspace: with the rows.
        output: the table that the stage writes.
        flags: of the command, with small batches.
        worker: part of the command line of the processes that do the work.
        bad: ids of samples that must fail.
        may_fail: error type of further samples that may fail, whatever happens to the job.
    """

    stage: str
    workspace: Workspace
    output: TableSpec
    flags: list[str]
    worker: str
    bad: Collection[str] = ()
    may_fail: str = ""

    @property
    def table(self) -> Table:
        return self.workspace.table(self.output)

    def is_half_done(self) -> bool:
        """Whether some rows are committed; fails if all are."""
        rows, total = self.table.count(), self.workspace.table(SAMPLES).count()
        assert rows < total - len(self.bad), "the job ended before anything happened to it"
        return rows > 0

    def check_complete(self) -> None:
        """Every sample has one row, of its results or, where it must fail, of failures."""
        done, failed = ids(self.workspace, self.output), ids(self.workspace, FAILURES)
        unexpected = pc.field("error_type") != self.may_fail
        assert ids(self.workspace, FAILURES, unexpected) == sorted(self.bad)
        assert sorted(done + failed) == ids(self.workspace, SAMPLES)


def decoding(folder: Path, catalog: Path, copies: int = 1) -> Workload:
    """Decode copies of a catalog."""
    rows = [
        row | {"sample_id": f"{row['sample_id']}-{copy}"}
        for copy in range(copies)
        for row in manifest_rows(catalog)
    ]
    manifest, uri = folder / "manifest.csv", str(folder / "workspace")
    write_manifest(manifest, rows)
    assert main(["prepare", "--manifest", str(manifest), "--workspace", uri]) == 0
    flags = ["--decode.batch-size", "2"]
    return Workload("decode", Workspace.open(uri), FRAMES, flags, "ray::MapBatches")


def transcribing(folder: Path, clips: int = 30, uri: str = "") -> Workload:
    """Transcribe clips by a tiny Whisper; `uri` is of the workspace, if it is not in `folder`."""
    workspace = Workspace.create(uri or folder / "workspace", "demo")
    bad = add_clips(workspace, folder, clips)
    model = write_faster_whisper(folder / "model", write_whisper(folder / "whisper"))
    flags = ["--transcribe.model", str(model), "--transcribe.language", "en"]
    flags += ["--transcribe.workers", "2", "--transcribe.cpus", "0.5"]
    flags += ["--transcribe.batch-size", "2"]
    return Workload("transcribe", workspace, TRANSCRIPTS, flags, "TranscribePieces", bad)


def summarizing(folder: Path, clips: int = 48, uri: str = "") -> Workload:
    """Summarize transcripts by the shipped model, in an engine on each node; `uri` as above."""
    workspace = Workspace.create(uri or folder / "workspace", "demo")
    workspace.table(SAMPLES).append(
        [
            {"sample_id": f"s{i}", "domain": "live", "text": text}
            for i, text in enumerate(new_transcripts(clips))
        ]
    )
    flags = ["--summarize.workers", "2", "--summarize.cpus", "0.5"]
    flags += ["--summarize.batch-size", "4", "--summarize.max-num-seqs", "4"]
    return Workload(
        "summarize", workspace, SUMMARIES, flags, "VLLM::EngineCore", may_fail="AnswerError"
    )


def embedding(folder: Path, products: int = 20) -> Workload:
    """Embed samples by a tiny network, two at a time."""
    workspace = Workspace.create(folder / "workspace", "demo")
    add_products(workspace, products)
    model = save_model(workspace, small_job(small_set(products)[0]))
    flags = ["--embed.model", "m", "--embed.batch-size", "2", "--embed.workers", "2"]
    flags += ["--embed.cpus", "0.5"]
    spec = embeddings_spec(embedding_name(model))
    return Workload("embed", workspace, spec, flags, "EmbedBatch")


# Without dropout, so that the curve does not depend on the number of workers. Nothing is computed
# before the first step.
TRAIN_FLAGS = [
    "--train.text", "none", "--train.epochs", "30", "--train.warmup-epochs", "2",
    "--train.workers", "2", "--train.min-workers", "1", "--train.cpus", "1",
    "--train.batch-size", "8", "--train.log-every", "1", "--train.checkpoint-every", "3",
    "--model.vision-weights", "", "--model.no-freeze-vision", "--model.missing-frames", "black",
    "--model.image-size", "64", "--model.vision-width", "64", "--model.vision-layers", "2",
    "--model.vision-heads", "2", "--model.num-frames", "2",
]  # fmt: skip


def metrics_of(workspace: Workspace, model: str) -> list[dict[str, float]]:
    """The metrics of a training's steps so far."""
    path = Path(workspace.uri) / "logs" / model / METRICS_FILE
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


WORKLOADS: dict[str, Callable[[Path], Workload]] = {
    "transcribe": transcribing,
    "summarize": summarizing,
    "embed": embedding,
}


def add_products(workspace: Workspace, products: int) -> None:
    """Add training products with two samples in each domain, and their frames."""
    training_set, frames = small_set(products)
    workspace.table(SAMPLES).append(
        [
            {"sample_id": sample_id, "product_id": product, "domain": domain, "split": "train"}
            | {"text": training_set.texts[sample_id]}
            for product, domains in training_set.products.items()
            for domain, sample_ids in domains.items()
            for sample_id in sample_ids
        ]
    )
    workspace.table(FRAMES).append(
        [
            {"sample_id": sample_id, "fingerprint": "f", "frames": jpegs}
            for sample_id, jpegs in frames.frames.items()
        ]
    )


def save_model(workspace: Workspace, job: TrainJob) -> Path:
    """Save a network with random weights as model `m`."""
    torch.manual_seed(0)
    folder = Path(workspace.uri) / "models" / "m"
    build_model(job).save_pretrained(folder, job.tokenizer)
    (folder / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "raw"}}))
    return folder


def add_clips(workspace: Workspace, folder: Path, count: int) -> list[str]:
    """Add clips of two or three seconds, of which half have the audio of another.

    Returns:
        The ids of the few whose file is missing or no media file.
    """
    files = sorted(SPEECH.glob("*.opus"))
    rows = []
    for i in range(count):
        path = folder / f"{i}.wav"
        if i % 2:
            shutil.copy(folder / f"{i - 1}.wav", path)
        else:
            samples = decode_audio(files[i // 2 % len(files)].read_bytes(), 60.0)
            start = i * SAMPLE_RATE // 100
            write_wav(path, samples[start : start + (2 + i % 4 // 2) * SAMPLE_RATE])
        rows.append(
            {
                "sample_id": f"c{i}",
                "domain": "live",
                "media_kind": "file",
                "media_uris": [str(path)],
            }
        )
    bad = [rows[i] for i in range(5, count, 20)]
    for i, row in enumerate(bad):
        Path(row["media_uris"][0]).unlink()
        if i % 2:
            Path(row["media_uris"][0]).write_text("no media")
    workspace.table(SAMPLES).append(rows)
    return [row["sample_id"] for row in bad]


def new_transcripts(count: int) -> list[str]:
    """Transcripts of clips of synthetic products."""
    rng = random.Random(0)
    return [recognize(say(product, rng, lines=8), rng) for product in demo_products(rng, count)]
