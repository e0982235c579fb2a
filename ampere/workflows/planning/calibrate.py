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
from ampere.pipeline.decode import DecodeStage
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
from ampere.workflows.planning.fit import Measured, StageCost, add, fit, measured
from ampere.workflows.planning.predict import Needs

FOLDER = "calibration"  # of the workspace; deleted at the end
LEAST_SAMPLES = 20
TASKS_PER_CORE = 3
EXPECTED = (FileNotFoundError, ValueError, RuntimeError)  # that concern one stage only


@dataclass
class Calibration:
    """What a run on samples of a workspace gave.

    Attributes:
        samples: of the run.
        runs: stage -> its run; those of its parts, if it has several.
        costs: stage -> what it costs.
        table_bytes: table -> bytes per sample.
        reasons: stage -> why it is not predictable here.
    """

    samples: int
    runs: dict[str, list[Measured]] = field(default_factory=dict)
    costs: dict[str, StageCost] = field(default_factory=dict)
    table_bytes: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def calibrate(
    workspace: Workspace, settings: Settings, stages: Sequence[PlanStage], samples: int
) -> Calibration:
    """Run stages on a part of a workspace.

    Args:
        workspace: with samples, and what the first of the stages reads.
        settings: of the stages.
        stages: to measure, in their order.
        samples: to run them on; all, if the workspace has fewer.

    Raises:
        ValueError: the workspace has too few samples.
        RuntimeError: another calibration is running in the workspace.
    """
    ids = random_ids(workspace, samples)
    result = Calibration(samples=len(ids))
    with part_of(workspace, ids, stages, settings) as part:
        for stage in stages:
            try:
                result.runs[stage] = measure(stage, part, settings, len(ids))
                result.costs[stage] = add([fit(run) for run in result.runs[stage]])
            except EXPECTED as error:
                result.reasons[stage] = str(error)
        sizes = table_sizes(part)
    result.table_bytes = {name: size / len(ids) for name, size in sizes.items()}
    return result


class LargeTasksDecode(DecodeStage):
    """Decode with few tasks of about equal size, larger than those of a short list would be.

    The gap between two tasks, 0.18 s, is a quarter of the time of three small files. The time that
    a core waits at the end is a large share of a short run.
    """

    def rows_per_block(self, num_rows: int, cores: int) -> int:
        """The batch size, or a third of what a core gets, if that is less."""
        return min(self.batch_size, -(-num_rows // (TASKS_PER_CORE * cores)))


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
        if workspace.names(FOLDER):  # left by a killed job
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


def measure(
    stage: PlanStage, workspace: Workspace, settings: Settings, samples: int
) -> list[Measured]:
    """Run a stage on all samples of a workspace, with new workers on a Ray that runs.

    Pools have one worker; tasks use all cores.

    Returns:
        The run of each of its parts; the time between them belongs to the first.

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
    reports = [report for report in run(stage, workspace, settings) if report.processed]
    seconds = time.perf_counter() - start
    if not reports:
        raise ValueError(f"none of {samples} samples has input for it")
    workers = 1 if needs.max_workers else max(1, int(resources["CPU"] / (needs.cpus or 1.0)))
    around = seconds - sum(report.seconds for report in reports)
    return [
        measured(
            report.arrivals,
            samples=samples,
            rows=report.processed,
            seconds=report.seconds + (0.0 if number else around),
            workers=workers,
        )
        for number, report in enumerate(reports)
    ]


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
        return [run_stage(LargeTasksDecode(workspace, settings.decode), workspace)]
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
    features = embed_features(workspace, embed)
    report = run_stage(EmbedStage(workspace, embed), workspace)
    return [report] if features is None else [features, report]


def table_sizes(workspace: Workspace) -> dict[str, int]:
    """Bytes of the data of each table, without superseded files and indexes."""
    embeddings = [embeddings_spec(name) for name in embedding_tables(workspace)]
    specs = (SAMPLES, TRANSCRIPTS, SUMMARIES, FRAMES, FEATURES, *embeddings)
    sizes = {spec.name: workspace.table(spec).data_bytes() for spec in specs}
    return {name: size for name, size in sizes.items() if size}
