"""The transcribe stage: the speech in clips that have no text in the catalog.

Tasks read the audio, find the speech in it, and cut it into pieces at quiet places; engines write
down what they hear; the driver joins the pieces of a clip. Equal audio is transcribed once.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.checks import worker_range
from ampere.config.transcribe import TranscribeSettings
from ampere.fingerprint import fingerprint
from ampere.media.decoder import RETRYABLE
from ampere.models.model_folder import model_identity
from ampere.pipeline.runner.pool_stats import HOUR_S, PoolStats
from ampere.pipeline.runner.ray_data import map_batches
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.stage import RetryPolicy, Stage, Work, error_row, result_table
from ampere.pipeline.transcribe.claims import Claims
from ampere.pipeline.transcribe.pieces import OUTCOME, SAME_AUDIO, AudioSource, read_heard
from ampere.records import SAMPLES, TRANSCRIPTS, Domain, MediaKind
from ampere.store.names import names_by_group
from ampere.store.table import Table
from ampere.store.texts import is_live
from ampere.store.transcripts import is_readable
from ampere.store.workspace import Workspace
from ampere.text.speech_engines.checks import check_engine
from ampere.text.transcript import TimedPiece, TranscriptStatus, transcript_fields

if TYPE_CHECKING:
    import ray.data

INPUT_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("fingerprint", pa.string()),
        ("position", pa.int64()),  # in the samples table
        ("group", pa.string()),  # whose names to expect
    ]
)
TRANSCRIPTION = 1  # version of the code between audio and transcript; a change makes all rows stale
TASKS_PER_CORE = 4  # at least, so that no core waits for another core's last long video


class EngineError(RuntimeError):
    """The engine failed on a piece of a clip, though it still runs."""


class TranscribeStage(Stage):
    """The transcribe stage over the clips of a workspace that have no text.

    Args:
        workspace: with the samples.
        settings: of the stage.

    Raises:
        ValueError: the engine is not installed, or `names_by` is no column.
        FileNotFoundError: the model is a path, and there is no model at it.
    """

    name = "transcribe"
    output = TRANSCRIPTS
    unit = "clip"
    retry = RetryPolicy(batch_sizes=(4, 1), errors=frozenset({EngineError.__name__}))
    retryable = frozenset(error.__name__ for error in RETRYABLE)

    def __init__(self, workspace: Workspace, settings: TranscribeSettings) -> None:
        check_engine(settings)
        self.settings = settings
        self.workspace = workspace
        self.samples = workspace.table(SAMPLES).dataset()
        self.transcripts = workspace.table(TRANSCRIPTS)
        self.names = names_by_group(workspace, settings)
        self.key = content_key(settings)
        self.model = f"{settings.engine}/{settings.model.rstrip('/').split('/')[-1]}"
        self.batch_size = settings.batch_size
        self.gpus = settings.gpus
        _, max_workers = worker_range("transcribe.workers", settings.workers)
        self.pool = PoolStats(max_workers, settings.hourly_price)
        self.audio_s = 0.0
        self.startup = f"loading {self.model}"

    def inputs(self) -> pa.Table:
        """A row per clip with a media file and without a text in the catalog."""
        column = self.settings.names_by
        group = [column] if column not in ("", "all") else []
        columns = ["sample_id", "domain", "origin", "text", "media_kind", "media_uris", *group]
        tables, position = [INPUT_SCHEMA.empty_table()], 0
        for batch in self.samples.to_batches(columns=columns) if self.samples else ():
            is_clip = pc.and_(
                pc.not_equal(batch["domain"], str(Domain.PAGE)),
                pc.equal(batch["media_kind"], str(MediaKind.FILE)),
            )
            is_silent = pc.and_not(pc.invert(is_readable(batch["text"])), is_live(batch["origin"]))
            fingerprints = [fingerprint(uris, self.key) for uris in batch["media_uris"].to_pylist()]
            groups = batch[column].cast(pa.string()) if group else pa.nulls(len(batch), pa.string())
            rows = pa.table(
                [
                    batch["sample_id"],
                    pa.array(fingerprints, pa.string()),
                    pa.array(range(position, position + batch.num_rows), pa.int64()),
                    groups,
                ],
                schema=INPUT_SCHEMA,
            )
            tables.append(rows.filter(pc.fill_null(pc.and_(is_clip, is_silent), False)))
            position += batch.num_rows
        return pa.concat_tables(tables)

    def rows_per_block(self, num_rows: int, cores: int) -> int:
        """The batch size; smaller for a short list, so that every core has several tasks."""
        return min(self.batch_size, max(1, num_rows // (TASKS_PER_CORE * cores)))

    def transform(self, work: Work) -> "ray.data.Dataset":
        """Read audio in tasks, transcribe it in engines."""
        import ray

        assert self.samples is not None, "there are rows, so there is a table that they are in"
        self.pool.start()
        # A row that was lost transcribes its own audio: the owner of a claim may be lost as well.
        claims = None if work.isolated else ray.remote(num_cpus=0)(Claims).remote(self._known())
        source = AudioSource(
            self.samples.uri,
            self.samples.version,
            self.settings,
            tuple(self.key),
            self.names,
            claims,
        )
        pieces = map_batches(
            work.blocks,
            source.rows_of,
            batch_format="pyarrow",
            batch_size=None,
            # On a small machine, whole cores for reading could leave none for an engine on the CPU.
            num_cpus=1 if self.settings.gpus else 0,
            concurrency=None if self.settings.gpus else max(1, self.pool.max_workers),
        )
        if self.settings.engine == "vllm":
            from ampere.pipeline.transcribe.engine import heard_by_engines as heard
        else:
            from ampere.pipeline.transcribe.actors import heard_by_actors as heard
        return heard(pieces, work, self.settings)

    def _known(self) -> list[str]:
        """Hashes of audio that has a transcript already."""
        rows = self.transcripts.read(["audio_hash"], pc.field("audio_hash") != "")
        return rows["audio_hash"].unique().to_pylist()

    def collect(self, batches: Iterator[pa.Table], report: Report) -> Iterator[pa.Table]:
        """Join the pieces of each clip; clips with the audio of another wait for its transcript."""
        clips: dict[str, Clip] = {}
        same: dict[str, dict[str, str]] = {}
        for batch in self.pool.collect(batches):
            rows = []
            for row in batch.to_pylist():
                if not row["pieces"]:
                    result = json.loads(row[OUTCOME])
                    if SAME_AUDIO in result:
                        same[row["sample_id"]] = row
                    else:
                        rows.append(self._base(row) | result)
                    continue
                clip = clips.setdefault(row["sample_id"], Clip())
                clip.add(row)
                if clip.is_complete:
                    rows.append(self._result(row, clips.pop(row["sample_id"])))
                    report.add("audio s", row["audio_s"])
                    self.audio_s += row["audio_s"]
            yield result_table(TRANSCRIPTS, rows)
        # The rows that were yielded are committed when this line is reached.
        yield self._copies(list(same.values()))

    def finish(self, output: Table, report: Report) -> None:
        """Report how many clips have a transcript, why the others have none, and the cost."""
        report.notes.append(describe(output))
        hours = self.pool.worker_hours
        if hours and self.audio_s:
            worker = "GPU" if self.settings.gpus == 1 else "engine"
            price = ""
            if self.settings.hourly_price:
                cost = self.settings.hourly_price * hours / (self.audio_s / HOUR_S)
                price = f", {cost:.3g} per audio hour at {self.settings.hourly_price:g} an hour"
            report.notes.append(
                f"{len(self.pool.ready)}/{self.pool.max_workers} engines: "
                f"{self.audio_s / HOUR_S:.3g} audio hours, "
                f"{self.audio_s / HOUR_S / hours:.3g} per {worker}-hour{price}"
            )

    def _base(self, row: dict[str, Any]) -> dict[str, Any]:
        """Columns of a result row that do not depend on what was heard."""
        keys = {"sample_id": row["sample_id"], "fingerprint": row["fingerprint"]}
        made = {"model": self.model, "audio_hash": row["audio_hash"], "seconds": row["audio_s"]}
        return keys | made | {"segments": []}

    def _result(self, row: dict[str, Any], clip: "Clip") -> dict[str, Any]:
        if clip.errors:
            error = EngineError(f"the speech model failed on this clip: {clip.errors[0]}")
            return error_row(row["sample_id"], row["fingerprint"], error)
        return self._base(row) | transcript_fields(clip.pieces)

    def _copies(self, rows: list[dict[str, Any]]) -> pa.Table:
        """Result rows of clips whose audio another clip has; none for one whose owner failed."""
        if not rows:
            return result_table(TRANSCRIPTS, [])
        hashes = pa.array({row["audio_hash"] for row in rows}, pa.string())
        made = self.transcripts.read(where=pc.field("audio_hash").isin(hashes)).to_pylist()
        by_hash = {row["audio_hash"]: row for row in made}
        return result_table(
            TRANSCRIPTS,
            [
                by_hash[row["audio_hash"]]
                | {"sample_id": row["sample_id"], "fingerprint": row["fingerprint"]}
                for row in rows
                if row["audio_hash"] in by_hash
            ],
        )


@dataclass
class Clip:
    """The pieces of a clip that were heard so far."""

    count: int = 0
    pieces: list[TimedPiece] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether all pieces are there."""
        return len(self.pieces) + len(self.errors) == self.count

    def add(self, row: dict[str, Any]) -> None:
        """Add a row of `HEARD_SCHEMA` with a piece."""
        self.count = row["pieces"]
        if row[OUTCOME]:
            self.errors.append(row[OUTCOME])
            return
        times = {name: row[name] for name in ("start_s", "end_s", "overlap_s")}
        self.pieces.append(TimedPiece(**times, heard=read_heard(row["heard"])))


def content_key(settings: TranscribeSettings) -> list[Any]:
    """Everything but the audio that decides a transcript.

    Names to expect are not in it: a new title in the catalog must not transcribe all clips again.
    """
    return [
        TRANSCRIPTION, settings.engine, model_identity(settings.model), settings.dtype,
        settings.language, settings.names_by, settings.piece_s, settings.max_tokens,
    ]  # fmt: skip


def describe(transcripts: Table) -> str:
    """A line on all rows: how many clips have a transcript, and why the others have none."""
    status = Counter(transcripts.read(["status"])["status"].to_pylist())
    return (
        f"transcripts: {status[TranscriptStatus.OK]} with speech, "
        f"{status[TranscriptStatus.EMPTY]} without speech in the audio (status empty), "
        f"{status[TranscriptStatus.MISSING]} files without audio (status missing)"
    )
