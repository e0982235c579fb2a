"""Decode the main audio track of a media file to mono samples at 16 kHz.

Samples lie at their presentation times, so a time in the audio is the same moment as that time of a
frame. A gap between two audio frames becomes silence, an overlap is cut, and what lies before time
0 is cut off. Damaged times must neither fill memory nor lose audio: a gap over `MAX_GAP_S` is
closed; audio whose times jump back by more than `MAX_OVERLAP_S` is appended to the audio before it.
If a file as a whole starts more than `MAX_GAP_S` from 0, as recordings of broadcasts do, its start
is time 0.
"""

import time
from collections.abc import Sequence

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Discard, Disposition
from numpy.typing import NDArray

from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.media.container import DAMAGE, open_container, packets_of
from ampere.media.decoder import MediaError, TooLarge
from ampere.media.source import READING_SHARE, load

TOLERANCE_S = 0.1  # stored times are rounded, and jitter in live streams; aresample's default
MAX_GAP_S = 600.0
MAX_OVERLAP_S = 1.0
MAX_PACKET_S = 10.0  # a longer one is damaged
MAX_PADDING_S = 1.0  # in packets at both ends, which decoders cut off
BYTES_PER_SAMPLE = 2  # while decoding
FULL_SCALE = 32_768


class NoAudio(MediaError):
    """The file has no audio track."""


def read_audio(source: str | bytes, settings: TranscribeSettings) -> NDArray[np.float32]:
    """Load a media file and decode its audio; see `decode_audio`.

    Raises:
        MediaError: as `load` and `decode_audio` raise it; limits name the settings of transcribe.
    """
    deadline = time.monotonic() + READING_SHARE * settings.time_limit_s
    max_bytes = int(settings.max_file_mb * 1e6)
    data = load(source, max_bytes, deadline, setting="transcribe.max_file_mb")
    return decode_audio(data, 60 * settings.max_audio_min)


def decode_audio(data: bytes, max_s: float) -> NDArray[np.float32]:
    """Decode the main audio track: the file's default or first; the next if it gives nothing.

    Broken packets are skipped.

    Args:
        data: the file.
        max_s: limit on the length, in seconds.

    Returns:
        float32 [N], mono, -1 to 1, `SAMPLE_RATE` per second; sample 0 is at time 0 of the file's
        frame timestamps. All channels but the low-frequency one are mixed, the center loudest.

    Raises:
        NoAudio: the file has no audio track, or only empty ones.
        TooLarge: the audio is longer than `max_s`.
        UnknownFormat, RefusedMedia: see `open_container`.
        MediaError: nothing could be decoded.
    """
    with open_container(data) as container:
        ranks = [_rank(stream) for stream in container.streams.audio]
    if not ranks:
        raise NoAudio("no audio track")
    problems = []
    for track in sorted(range(len(ranks)), key=ranks.__getitem__):
        with open_container(data) as container:
            stream = container.streams.audio[track]
            packets = _packets(container, stream, max_s)
            if not packets:
                continue
            timeline = Timeline(_origin_s(container), max_s)
            problem = _decode(stream, packets, timeline)
        samples = timeline.finish()
        if len(samples):
            return samples
        problems.append(f"{len(packets)} packets, {problem}")
    if not problems:
        raise NoAudio("the audio track is empty")
    raise MediaError(f"no audio could be decoded ({'; '.join(problems)})")


def _rank(stream: AudioStream) -> tuple[bool, int]:
    """Sort key of the main track: the file's default, the first."""
    return not stream.disposition & Disposition.default, stream.index


def _origin_s(container: InputContainer) -> float:
    """The stored time that is time 0 of the samples, in seconds."""
    start_s = (container.start_time or 0) / av.time_base
    return start_s if abs(start_s) > MAX_GAP_S else 0.0


def _packets(container: InputContainer, track: AudioStream, max_s: float) -> list[av.Packet]:
    """The packets of one audio stream, of `max_s` seconds at most.

    The lengths in headers are not used, since they may be damaged, or only estimated.
    """
    for stream in container.streams:
        if stream.index != track.index:
            stream.discard = Discard.all
    packets, length_s = [], 0.0
    for packet in packets_of(container):
        if packet.stream_index == track.index:
            packets.append(packet)
            length_s += min(float((packet.duration or 0) * packet.time_base), MAX_PACKET_S)
            _check_length(length_s - MAX_PADDING_S, max_s)
    return packets


def _check_length(length_s: float, max_s: float) -> None:
    if length_s > max_s:
        limit = f"{max_s / 60:g} min (transcribe.max_audio_min)"
        raise TooLarge(f"the audio is longer than the limit of {limit}")


def _decode(stream: AudioStream, packets: Sequence[av.Packet], timeline: "Timeline") -> str:
    """Put all frames that can be decoded on the timeline; return the last problem."""
    codec = stream.codec_context
    if codec is None:
        return "unknown audio codec"
    codec.thread_count, codec.thread_type = 1, ThreadType.NONE
    problem = "no frames"
    for packet in [*packets, None]:  # None drains the codec
        try:
            for frame in codec.decode(packet):
                timeline.add(frame)
        except DAMAGE as error:
            problem = f"{codec.name}: {error}"
    return problem


class Timeline:
    """Mono samples of decoded frames, each at its time.

    Args:
        origin_s: stored time that is time 0 of the samples.
        max_s: limit on the length, in seconds.
    """

    def __init__(self, origin_s: float, max_s: float) -> None:
        self.max_s = max_s
        self._samples = bytearray()  # of int16; appending to it copies no earlier samples
        self._shift_s = -origin_s  # from stored times to those of the samples
        self._run: Run | None = None
        self._ahead = 0  # samples of silence to insert before the next ones; negative: to cut off

    def add(self, frame: AudioFrame) -> None:
        """Add the next frame in decoding order.

        Raises:
            TooLarge: the audio is longer than the limit.
            FFmpegError: its channels cannot be mixed.
        """
        end_s = self._run.end_s if self._run else 0.0
        start_s = end_s if frame.time is None else frame.time + self._shift_s
        jump_s = start_s - end_s
        is_damaged = jump_s > MAX_GAP_S or (self._run is not None and jump_s < -MAX_OVERLAP_S)
        if is_damaged:
            self._shift_s -= jump_s
        if is_damaged or (self._run and abs(jump_s) <= TOLERANCE_S):
            start_s = end_s
        if self._run is None or start_s != end_s or not self._run.takes(frame):
            self._write(self._run.drain() if self._run else [])
            self._run = Run(start_s, frame)
            self._ahead = round(start_s * SAMPLE_RATE) - self._num_samples
        self._write(self._run.resample(frame))

    def finish(self) -> NDArray[np.float32]:
        """All samples, float32 [N], from -1 to 1; none if no frame was added."""
        self._write(self._run.drain() if self._run else [])
        samples = np.frombuffer(self._samples, np.int16).astype(np.float32)
        samples /= FULL_SCALE
        return samples

    @property
    def _num_samples(self) -> int:
        return len(self._samples) // BYTES_PER_SAMPLE

    def _write(self, frames: Sequence[AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray()[0]
            cut = max(0, min(-self._ahead, len(samples)))
            silence = max(0, self._ahead)
            self._ahead = min(0, self._ahead + cut)
            total = self._num_samples + silence + len(samples) - cut
            _check_length(total / SAMPLE_RATE, self.max_s)
            self._samples += bytes(silence * BYTES_PER_SAMPLE) + samples[cut:].tobytes()


class Run:
    """Frames of one format that follow each other without a gap; resampled to mono.

    The resampler gets 16-bit samples out: with them FFmpeg scales the mix of several channels so
    that it cannot clip. It does not with floating-point ones.

    Args:
        start_s: of the first frame.
        frame: the first frame.
    """

    def __init__(self, start_s: float, frame: AudioFrame) -> None:
        self.start_s = start_s
        self.format = _format(frame)
        self.num_samples = 0
        self.resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    @property
    def end_s(self) -> float:
        """When the next frame starts."""
        rate, _, _ = self.format
        return self.start_s + self.num_samples / rate

    def takes(self, frame: AudioFrame) -> bool:
        """Whether a frame has the format of the others."""
        return _format(frame) == self.format

    def resample(self, frame: AudioFrame) -> list[AudioFrame]:
        """Add a frame; return the samples that are ready."""
        self.num_samples += frame.samples
        frame.pts = None  # the filter would drop or fill samples where stored times are rounded
        return self.resampler.resample(frame)

    def drain(self) -> list[AudioFrame]:
        """Return the samples that are left; none if the frames could not be mixed."""
        try:
            return self.resampler.resample(None)
        except DAMAGE:
            return []


def _format(frame: AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name
