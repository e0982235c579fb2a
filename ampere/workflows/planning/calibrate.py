"""Short runs of the stages on a part of a workspace's samples, in a workspace of their own.

The runs use the real stages, files, model and storage, and leave nothing behind.
"""

import dataclasses
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ampere.cluster import connect, disconnect
from ampere.config.checks import worker_range
from ampere.config.plan import PlanStage
from ampere.config.settings import Settings
from ampere.models.model_folder import SETTINGS_FILE
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.train.untrained import save_untrained
from ampere.records import (
    FEATURES,
    FRAMES,
    SAMPLES,
    SUMMARIES,
    TRANSCRIPTS,
    TableSpec,
)
from ampere.store.embeddings import embedding_tables, embeddings_spec
from ampere.store.models import model_folder
from ampere.store.texts import is_live
from ampere.store.workspace import Workspace
from ampere.workflows.planning.fit import Measured, StageCost, bytes_per_sample, fit
from ampere.workflows.planning.predict import Needs

FOLDER = "calibration"  # of the workspace; deleted at the end
SMALL = 4  # the larger run has this many times the samples of the smaller one
LEAST_SAMPLES = 20
EXPECTED = (FileNotFoundError, ValueError, RuntimeError)  # that concern one stage only


@dataclass
class Calibration:
    """What two runs on samples of a workspace gave.

    Attributes:
        samples: of the larger run.
        runs: stage -> its smaller and its larger run.
        costs: stage -> what it costs.
        table_bytes: table -> bytes that a sample adds to it.
        reasons: stage -> why it is not predictable here.
    """

    samples: int
    runs: dict[str, tuple[Measured, Measured]] = field(default_factory=dict)
    costs: dict[str, StageCost] = field(default_factory=dict)
    table_bytes: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def calibrate(
    workspace: Workspace, settings: Settings, stages: Sequence[PlanStage], samples: int
) -> Calibration:
    """Run stages on a few samples and on four times as many.

    Args:
        workspace: with samples, and what the first of the stages reads.
        settings: of the stages.
        stages: to measure, in their order.
        samples: of the larger run; all, if the workspace has fewer.

    Raises:
        ValueError: the workspace has too few samples.
        RuntimeError: another calibration is running in the workspace.
    """
    ids = random_ids(workspace, samples)
    measured = Calibration(samples=len(ids))
    runs: list[dict[str, Measured]] = []
    sizes: list[dict[str, int]] = []
    for count in (len(ids) // SMALL, len(ids)):
        with part_of(workspace, ids[:count], stages, settings) as part:
            runs.append({})
            for stage in stages:
                if stage in measured.reasons:
                    continue
                try:
                    runs[-1][stage] = measure(stage, part, settings, count)
                except EXPECTED as error:
                    measured.reasons[stage] = str(error)
            sizes.append(table_sizes(part))
    small, large = runs
    for name, larger in large.items():
        measured.runs[name] = (small[name], larger)
        try:
            measured.costs[name] = fit(small[name], larger)
        except ValueError as error:
            measured.reasons[name] = str(error)
    before, after = sizes
    measured.table_bytes = bytes_per_sample(before, after, len(ids) - len(ids) // SMALL)
    return measured


def random_ids(workspace: Workspace, count: int) -> list[str]:
    """Ids of samples of the catalog, the same in every call; all, if there are fewer.

    Raises:
        ValueError: there are too few to measure anything.
    """
    rows = workspace.table(SAMPLES).read(["sample_id", "origin"])
    ids = sorted(rows["sample_id"].filter(pc.invert(is_live(rows["origin"]))).to_pylist())
    if min(count, len(ids)) < LEAST_SAMPLES:
        raise ValueError(
            f"a calibration takes at least {LEAST_SAMPLES} samples: --sample is {count}, and "
            f"{workspace.uri} has {len(ids)}. Run `ampere prepare` on a larger part of the catalog"
        )
    return random.Random(0).sample(ids, min(count, len(ids)))


@contextmanager
def part_of(
    workspace: Workspace, ids: Sequence[str], stages: Sequence[PlanStage], settings: Settings
) -> Iterator[Workspace]:
    """A workspace of some samples inside another one, with what the stages read; deleted after."""
    with workspace.lock(FOLDER):
        if FOLDER in workspace.names(""):  # left by a killed job
            workspace.remove(FOLDER)
        part = Workspace.create(f"{workspace.uri}/{FOLDER}", workspace.preset)
        try:
            made = {"decode": FRAMES, "transcribe": TRANSCRIPTS, "summarize": SUMMARIES}
            own = [spec.name for stage, spec in made.items() if stage in stages]
            for spec in (SAMPLES, FRAMES, TRANSCRIPTS, SUMMARIES):
                if spec.name not in own:
                    copy_rows(workspace, part, spec, ids)
            if "embed" in stages:
                copy_model(workspace, part, settings)
            yield part
        finally:
            disconnect()  # its workers may have files of the folder open
            workspace.remove(FOLDER)


def copy_rows(source: Workspace, target: Workspace, spec: TableSpec, ids: Sequence[str]) -> None:
    """Copy the rows of some samples to a table that does not exist yet."""
    table = source.table(spec)
    if table.dataset() is None:
        return
    rows = table.read(where=pc.field("sample_id").isin(pa.array(ids, pa.string())))
    copied = target.table(spec)
    copied.add_columns(table.extra_columns())
    copied.append(rows)
    copied.compact()


def copy_model(source: Workspace, target: Workspace, settings: Settings) -> None:
    """Copy the model to embed with, or save it if it is one that nobody trains."""
    name = settings.embed.model
    if name in source.names("models"):
        target.publish(model_folder(source, name), f"models/{name}", last=SETTINGS_FILE)
    elif name == settings.train.name:
        save_untrained(target, settings)


def measure(stage: PlanStage, workspace: Workspace, settings: Settings, samples: int) -> Measured:
    """Run a stage on all samples of a workspace, with new workers on a Ray that runs.

    Pools have one worker; tasks use all cores.

    Raises:
        RuntimeError: it needs more GPUs than Ray has, or it failed.
        ValueError: no sample needs it.
    """
    disconnect()
    connect()
    import ray

    resources, needs = ray.cluster_resources(), worker_needs(stage, settings)
    if needs.gpus > resources.get("GPU", 0.0):
        raise RuntimeError(
            f"{stage}.gpus is {needs.gpus:g} and Ray has {resources.get('GPU', 0.0):g} GPUs here. "
            "Run `ampere plan` where such a GPU is: no rate is carried over from a CPU"
        )
    start = time.perf_counter()
    rows = sum(report.processed for report in run(stage, workspace, settings))
    seconds = time.perf_counter() - start
    if not rows:
        raise ValueError(f"none of {samples} samples has input for it")
    workers = 1 if needs.max_workers else max(1, int(resources["CPU"] / (needs.cpus or 1.0)))
    return Measured(samples=samples, rows=rows, seconds=seconds, workers=workers)


def worker_needs(stage: PlanStage, settings: Settings) -> Needs:
    """What a worker of a stage reserves."""
    if stage == "decode":
        return Needs(cpus=settings.decode.cpus)
    own = getattr(settings, stage)
    _, most = worker_range(f"{stage}.workers", own.workers, least=0)
    return Needs(cpus=own.cpus, gpus=own.gpus, max_workers=most)


def run(stage: PlanStage, workspace: Workspace, settings: Settings) -> list[Report]:
    """Run a stage as its command does, with one worker in its pool."""
    # Each imports its engines only if it is run.
    if stage == "decode":
        from ampere.pipeline.decode import DecodeStage

        return [run_stage(DecodeStage(workspace, settings.decode), workspace)]
    if stage == "transcribe":
        from ampere.pipeline.transcribe.stage import TranscribeStage

        heard = dataclasses.replace(settings.transcribe, workers="1")
        return [run_stage(TranscribeStage(workspace, heard), workspace)]
    if stage == "summarize":
        from ampere.pipeline.summarize.stage import SummarizeStage

        read = dataclasses.replace(settings.summarize, workers="1")
        return [run_stage(SummarizeStage(workspace, read), workspace)]
    from ampere.pipeline.embed import EmbedStage
    from ampere.pipeline.features import embed_features

    embed = dataclasses.replace(settings.embed, workers="1")
    embed_features(workspace, embed)
    return [run_stage(EmbedStage(workspace, embed), workspace)]


def table_sizes(workspace: Workspace) -> dict[str, int]:
    """Bytes of the data of each table, without superseded files and indexes."""
    embeddings = [embeddings_spec(name) for name in embedding_tables(workspace)]
    specs = (SAMPLES, TRANSCRIPTS, SUMMARIES, FRAMES, FEATURES, *embeddings)
    sizes = {spec.name: workspace.table(spec).data_bytes() for spec in specs}
    return {name: size for name, size in sizes.items() if size}
