"""The rows between files and speech engines: pieces of audio, and what was heard in them.

A file without audio, without speech, with an error, or with the audio of another sample has one
row without a piece. It carries its outcome in Ray's own column for failed rows, so that engines
skip it.
"""

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.fingerprint import fingerprint
from ampere.media.audio import NoAudio, read_audio
from ampere.media.isolated import IsolatedProcess
from ampere.media.speech import Piece, SpeechDetector
from ampere.pipeline.runner.pool_stats import WORKER_COLUMNS
from ampere.pipeline.runner.stage import error_columns
from ampere.text.transcript import PieceTranscript, Segment, TranscriptStatus

OUTCOME = "__inference_error__"  # Ray's; its engine stage skips rows in which it is not empty
PIECES_PER_BLOCK = 16
SAME_AUDIO = "same"  # outcome: another sample's transcript will do
_PIECE = [
    ("sample_id", pa.string()),
    ("fingerprint", pa.string()),
    ("audio_hash", pa.string()),
    ("audio_s", pa.float64()),  # length of the file's audio
    ("pieces", pa.int32()),  # of the file; 0: this row has none
    ("start_s", pa.float64()),  # of the piece, from time 0 of the file
    ("end_s", pa.float64()),
    ("overlap_s", pa.float64()),  # with the piece before it
    (OUTCOME, pa.string()),  # JSON of columns of the result; empty for a piece
]
PIECE_SCHEMA = pa.schema(
    [
        *_PIECE,
        ("names", pa.string()),  # to expect; empty: none
        ("audio", pa.large_binary()),  # float32 [n]
    ]
)
HEARD_SCHEMA = pa.schema(
    [
        *_PIECE,
        ("heard", pa.string()),  # JSON of a `PieceTranscript`; empty if the engine failed
        *WORKER_COLUMNS,  # null for rows without a piece
    ]
)


@dataclass(frozen=True)
class AudioSource:
    """Where tasks find the files of some samples, and how they share the work.

    Attributes:
        uri, version: of the samples table that positions refer to.
        settings: of the stage.
        key: what else decides a transcript.
        names: value of a sample's group -> names to expect.
        claims: the actor; None: every row is transcribed.
    """

    uri: str
    version: int
    settings: TranscribeSettings
    key: tuple[Any, ...]
    names: dict[str, str] = field(default_factory=dict)
    claims: Any = None

    def rows_of(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Read the audio of some samples, one after the other.

        Args:
            batch: sample_id, fingerprint, position and group.

        Yields:
            Rows of `PIECE_SCHEMA`.
        """
        samples = lance.dataset(self.uri, version=self.version)
        positions = batch["position"].to_pylist()
        media = samples.take(positions, columns=["media_uris"])["media_uris"].to_pylist()
        for row, uris in zip(batch.to_pylist(), media, strict=True):
            rows: Iterator[dict[str, Any]]
            try:
                rows = self._pieces(row, uris[0])
            except NoAudio:
                rows = iter([outcome(row, {"status": TranscriptStatus.MISSING})])
            except Exception as error:  # the per-row edge: a strange file fails only its own row
                rows = iter([outcome(row, error_columns(error))])
            # Hours of audio are not in memory twice.
            while some := list(islice(rows, PIECES_PER_BLOCK)):
                yield pa.Table.from_pylist(some, schema=PIECE_SCHEMA)

    def _pieces(self, row: dict[str, Any], uri: str) -> Iterator[dict[str, Any]]:
        settings = self.settings
        process = _process(settings.time_limit_s, settings.memory_limit_gb)
        samples = process.call(read_audio, uri, settings)
        key = audio_hash(samples, [*self.key, row["group"] if self.names else None])
        row = row | {"audio_hash": key, "audio_s": len(samples) / SAMPLE_RATE}
        pieces = _detector().pieces(samples, settings.piece_s)
        if not pieces:
            return iter([outcome(row, {"status": TranscriptStatus.EMPTY})])
        if not self._is_mine(key, row["sample_id"]):
            return iter([outcome(row, {SAME_AUDIO: True})])
        names = self.names.get(row["group"] or "", "")
        return (piece_row(row, piece, len(pieces), names) for piece in pieces)

    def _is_mine(self, key: str, sample_id: str) -> bool:
        if self.claims is None:
            return True
        import ray

        return ray.get(self.claims.claim.remote(key, sample_id))


# One child process and one detector for each process that runs tasks, for as long as it lives.
_process = functools.cache(IsolatedProcess)
_detector = functools.cache(SpeechDetector)


def audio_hash(samples: NDArray[np.float32], key: list[Any]) -> str:
    """Equal for equal audio that is transcribed alike.

    Args:
        samples: float32 [n].
        key: what else decides the transcript.
    """
    digest = hashlib.blake2b(np.ascontiguousarray(samples).data, digest_size=16)
    return fingerprint(digest.hexdigest(), key)


def outcome(row: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """A row of `PIECE_SCHEMA` without a piece: columns of the result are known."""
    empty = {"pieces": 0, "start_s": 0.0, "end_s": 0.0, "overlap_s": 0.0}
    return {"audio_hash": "", "audio_s": 0.0} | row | empty | {OUTCOME: json.dumps(result)}


def piece_row(row: dict[str, Any], piece: Piece, pieces: int, names: str) -> dict[str, Any]:
    """A row of `PIECE_SCHEMA`."""
    return row | {
        "pieces": pieces,
        "start_s": piece.start_s,
        "end_s": piece.end_s,
        "overlap_s": piece.overlap_s,
        "names": names,
        "audio": piece.samples.astype(np.float32, copy=False).tobytes(),
        OUTCOME: "",
    }


def heard_json(heard: PieceTranscript) -> str:
    """A cell of `heard`."""
    return json.dumps(asdict(heard), ensure_ascii=False)


def read_heard(text: str) -> PieceTranscript:
    """What `heard_json` wrote."""
    fields = json.loads(text)
    segments = tuple(Segment(**segment) for segment in fields.pop("segments"))
    return PieceTranscript(**fields, segments=segments)
