"""Speech models in Ray actors: faster-whisper, a batch of pieces per call."""

import time
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ampere.config.checks import worker_range
from ampere.config.transcribe import TranscribeSettings
from ampere.pipeline.runner.ray_data import ATTEMPTS_BEFORE_ISOLATION, map_batches
from ampere.pipeline.runner.stage import Work
from ampere.pipeline.transcribe.pieces import HEARD_SCHEMA, OUTCOME, heard_json
from ampere.text.speech_engines.whisper import FasterWhisper

if TYPE_CHECKING:
    import ray.data


def heard_by_actors(
    pieces: "ray.data.Dataset", work: Work, settings: TranscribeSettings
) -> "ray.data.Dataset":
    """Rows of `HEARD_SCHEMA` from rows of `PIECE_SCHEMA`."""
    from ray.data import ActorPoolStrategy

    min_workers, max_workers = worker_range("transcribe.workers", settings.workers)
    pool = (1, 1) if work.isolated else (min_workers, max_workers)
    return map_batches(
        pieces,
        TranscribePieces,
        attempts=ATTEMPTS_BEFORE_ISOLATION,
        fn_constructor_kwargs={"settings": settings},
        compute=ActorPoolStrategy(min_size=pool[0], max_size=pool[1]),
        batch_format="pyarrow",
        batch_size=work.batch_size if work.isolated else settings.batch_size,
        num_cpus=settings.cpus,
        num_gpus=settings.gpus,
    )


class TranscribePieces:
    """The actor: holds one model.

    Args:
        settings: of the stage.

    Raises:
        ValueError, RuntimeError: the model cannot be loaded.
    """

    def __init__(self, settings: TranscribeSettings) -> None:
        self.settings = settings
        self.transcriber = FasterWhisper(settings)
        self.worker = {"worker": uuid.uuid4().hex, "ready": time.time(), "retried": False}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `PIECE_SCHEMA` to rows of `HEARD_SCHEMA`."""
        rows = []
        for row in batch.to_pylist():
            audio, names = row.pop("audio"), row.pop("names")
            if row[OUTCOME]:
                rows.append(row)
                continue
            start = time.perf_counter()
            try:
                piece = np.frombuffer(audio, np.float32)
                (heard,) = self.transcriber.transcribe([piece], self.settings.language, names or "")
                row["heard"] = heard_json(heard)
            except Exception as error:  # the per-row edge: a strange piece fails only its own clip
                row[OUTCOME] = f"{type(error).__name__}: {error}"
            rows.append(row | self.worker | {"seconds": time.perf_counter() - start})
        return pa.Table.from_pylist(rows, schema=HEARD_SCHEMA)
