"""Decoding by PyAV (FFmpeg), the decoder of first choice: it reads the most files and decodes the fewest frames.

A file's packets are read once and no seeking follows, so files without an index are as good as others. From the key
packet before each wanted frame, packets go to the codec up to that frame; frames that no other frame refers to are
left out of the work unless they are wanted themselves. Where packets do not tell the frames' times, or a wanted frame
does not come out, all frames are decoded and chosen from.
"""

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import av
import av.error
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ampere.media.decoder import (
    DEFAULT_MAX_PIXELS,
    Clip,
    MediaError,
    RefusedMedia,
    Sampling,
    TooLarge,
    scaled_size,
)
from ampere.media.sampling import keyframe_times, uniform_indices, uniform_times

# Codecs of one packet a frame that honour skip_frame=NONREF: frames that no other refers to cost nothing.
SKIP_UNREFERENCED = {"h264", "hevc"}
HDR_TRANSFERS = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}
# What PyAV raises on damaged files: FFmpeg's errors, which are also built-in ones, and its own on odd metadata.
DAMAGE = (av.error.FFmpegError, ValueError, OSError)


class PyavDecoder:
    """One thread per video: the stage runs many videos at once."""

    name = "pyav"

    def decode(
        self,
        data: bytes,
        num_frames: int,
        *,
        sampling: Sampling = Sampling.UNIFORM,
        short_side: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Clip:
        """See `Decoder.decode`. A file that is damaged, or whose packets tell no times, is sampled uniformly."""
        with _open(data) as container:
            tracks = read_tracks(container)
            for track in tracks:
                _set_up(track, max_pixels)
                to_rgb = ToRgb(short_side)
                taken = take_few(track, num_frames, sampling, to_rgb) or take_from_all(track, num_frames, to_rgb)
                if taken:
                    seconds, frames = zip(*taken, strict=True)
                    return Clip(frames=np.stack(frames), timestamps_s=np.array(seconds), decoder=self.name)
        packets = ", ".join(f"{len(track.packets)} packets of {track.stream.name}" for track in tracks)
        raise MediaError(f"no frame comes out of its video ({packets})")


@dataclass
class Track:
    """One video stream with its packets, in decoding order."""

    stream: VideoStream
    packets: list[av.Packet] = field(default_factory=list)

    @property
    def codec(self) -> VideoCodecContext:
        return self.stream.codec_context

    @property
    def time_base(self) -> Fraction:
        return self.stream.time_base or Fraction(1)

    @cached_property
    def times(self) -> list[int]:
        """Sorted start times of the frames that a player shows; empty where the packets do not tell."""
        if any(packet.pts is None for packet in self.packets):
            return []
        return sorted({packet.pts for packet in self.packets if not packet.is_discard})

    @cached_property
    def last_duration(self) -> int:
        """How long the last frame is shown; as long as the others where the file does not say."""
        last = max(self.packets, key=lambda packet: packet.pts)
        return last.duration or (self.times[-1] - self.times[0]) // max(1, len(self.times) - 1)

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """Sorts the main stream first: more than a still, then what the file says is the default, then the first."""
        is_default = bool(self.stream.disposition & Disposition.default)
        return len(self.packets) < 2, not is_default, self.stream.index


def _open(data: bytes) -> InputContainer:
    def refuse(url: str, flags: int, options: dict[str, str]) -> None:
        raise PermissionError(f"it would open {url}")

    options = {"protocol_whitelist": "none"}
    try:
        return av.open(io.BytesIO(data), container_options=options, metadata_errors="replace", io_open=refuse)
    except PermissionError as error:
        raise RefusedMedia("a playlist or script that opens other files, which is not allowed") from error
    except DAMAGE as error:
        raise MediaError(f"not a video of a known format: {error}") from error


def read_tracks(container: InputContainer) -> list[Track]:
    """The video streams of a file with their packets, the main one first; cover art is no video.

    Raises:
        MediaError: there is no video in it.
    """
    tracks = {}
    for stream in container.streams:
        if isinstance(stream, VideoStream) and not stream.disposition & Disposition.attached_pic:
            tracks[stream.index] = Track(stream)
        else:
            stream.discard = Discard.all
    for packet in _packets(container):
        if packet.stream_index in tracks:
            tracks[packet.stream_index].packets.append(packet)
    found = sorted((track for track in tracks.values() if track.packets), key=lambda track: track.rank)
    if not found:
        raise MediaError("the video stream is empty" if tracks else "no video stream")
    return found


def _packets(container: InputContainer) -> Iterator[av.Packet]:
    """A file's packets up to its end, or to where damage makes the rest unreadable."""
    try:
        yield from (packet for packet in container.demux() if packet.size)  # an empty one asks to flush
    except DAMAGE:
        return


def _set_up(track: Track, max_pixels: int) -> None:
    codec = track.codec
    if codec is None:
        raise MediaError("its video is of an unknown codec")
    if codec.width * codec.height > max_pixels:
        raise TooLarge(f"{codec.width} x {codec.height} pixels a frame; the limit is {max_pixels / 1e6:g} megapixels")
    codec.thread_count, codec.thread_type = 1, ThreadType.NONE
    codec.options = {"max_pixels": str(max_pixels)}  # sizes can change inside a stream


class ToRgb:
    """Makes decoded frames of one clip upright RGB pictures of one size."""

    def __init__(self, short_side: int | None) -> None:
        self.short_side = short_side
        self.size: tuple[int, int] | None = None  # of the first frame; a stream can change its size midway
        self.turns = 0

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """uint8 [H, W, 3]; HDR is brought into the range of ordinary screens."""
        if self.size is None:
            self.size = scaled_size(frame.width, frame.height, self.short_side)
            self.turns = round(frame.rotation / 90) % 4
        is_hdr = frame.color_trc in HDR_TRANSFERS
        scaled = frame.reformat(
            *self.size,
            format="rgb24",
            interpolation=None if self.size == (frame.width, frame.height) else Interpolation.BICUBIC,
            dst_color_trc=ColorTrc.BT709 if is_hdr else None,
            dst_color_primaries=ColorPrimaries.BT709 if is_hdr else None,
            threads=1,
        )
        return np.rot90(scaled.to_ndarray(), self.turns)


Taken = list[tuple[float, NDArray[np.uint8]]]  # seconds and picture of each sampled frame


def take_few(track: Track, num_frames: int, sampling: Sampling, to_rgb: ToRgb) -> Taken:
    """The sampled frames, decoding as few others as can be.

    Empty if the packets do not tell the frames' times, or if a wanted frame does not come out.
    """
    key_times = [packet.pts for packet in track.packets if packet.is_keyframe and not packet.is_discard]
    if not track.times or not key_times:
        return []
    if sampling is Sampling.KEYFRAME:
        wanted = keyframe_times(track.times, key_times, track.last_duration, num_frames)
    else:
        wanted = uniform_times(track.times, track.last_duration, num_frames)
    found: dict[int, NDArray[np.uint8]] = {}
    for start, stop in _runs(track, wanted):
        for frame in _decode(track, start, stop, skip_all_but=set(wanted)):
            if frame.pts in wanted and frame.pts not in found:
                found[frame.pts] = to_rgb(frame)
    if not found.keys() >= set(wanted):
        return []
    return [(float(time * track.time_base), found[time]) for time in wanted]


def _runs(track: Track, wanted: Sequence[int]) -> list[tuple[int, int]]:
    """Spans of packets to decode: each from a key packet to the last wanted one that needs it."""
    position = {packet.pts: i for i, packet in enumerate(track.packets)}
    keys = [i for i, packet in enumerate(track.packets) if packet.is_keyframe]
    runs: list[tuple[int, int]] = []
    for at in sorted({position[time] for time in wanted}):
        time = track.packets[at].pts
        # Frames shown before a key frame but stored behind it lean on the one before it.
        start = next((i for i in reversed(keys[: bisect_right(keys, at)]) if track.packets[i].pts <= time), 0)
        if runs and start < runs[-1][1]:
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((start, at + 1))
    return runs


def _decode(track: Track, start: int, stop: int, skip_all_but: set[int] | None = None) -> Iterator[VideoFrame]:
    """Decode packets `start` to `stop`, which begin with a key packet; what cannot be decoded is left out.

    Frames that no other refers to are skipped unless their time is in `skip_all_but`; None: all come.
    """
    codec = track.codec
    if codec.is_open:
        codec.flush_buffers()
    codec.skip_frame = "DEFAULT"
    may_skip = codec.name in SKIP_UNREFERENCED
    for packet in [*track.packets[start:stop], None]:  # None drains the codec
        if may_skip and packet is not None and skip_all_but is not None:
            codec.skip_frame = "DEFAULT" if packet.pts in skip_all_but else "NONREF"
        try:
            yield from codec.decode(packet)
        except DAMAGE:
            continue


def take_from_all(track: Track, num_frames: int, to_rgb: ToRgb) -> Taken:
    """Frames sampled uniformly from all that can be decoded: twice the work of decoding the whole video.

    Empty if there are none.
    """
    every = (0, len(track.packets))
    count = sum(1 for _ in _decode(track, *every))
    if not count:
        return []
    wanted = uniform_indices(count, num_frames)
    found: dict[int, tuple[float, NDArray[np.uint8]]] = {}
    for i, frame in enumerate(_decode(track, *every)):
        if i in wanted:
            found[i] = (_seconds(track, frame, i), to_rgb(frame))
            if len(found) == len(set(wanted)):
                break
    return [found[i] for i in wanted]


def _seconds(track: Track, frame: VideoFrame, index: int) -> float:
    """When a frame is shown; by its number and the stream's rate where it does not say."""
    if frame.pts is not None:
        return float(frame.pts * track.time_base)
    rate = track.stream.guessed_rate
    return float(index / rate) if rate else 0.0
