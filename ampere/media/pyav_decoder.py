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
from itertools import pairwise
from typing import TypeGuard

import av
import av.error
import numpy as np
from av.buffer import Buffer
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorTrc, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ampere.media.decoder import (
    DEFAULT_MAX_PIXELS,
    Clip,
    MediaError,
    NotAVideo,
    RefusedMedia,
    Sampling,
    TooLarge,
    scaled_size,
)
from ampere.media.hdr import to_ordinary
from ampere.media.sampling import keyframe_times, uniform_positions

UNTOLD = {"apng"}  # FFmpeg calls some of their packets key frames that are not
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
                taken = take_few(track, num_frames, sampling, to_rgb) or take_from_all(
                    track, num_frames, to_rgb
                )
                if taken:
                    seconds, frames = zip(*taken, strict=True)
                    return Clip(
                        frames=np.stack(frames), timestamps_s=np.array(seconds), decoder=self.name
                    )
        packets = ", ".join(
            f"{len(track.packets)} packets of {track.stream.name}" for track in tracks
        )
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
    def position(self) -> dict[int, int]:
        """Start time of each frame that a player shows, in time order, and where its packet is.

        Empty where the packets do not tell. A recording may start midway; what comes before its first key frame
        cannot be decoded.
        """
        times = [packet.pts for packet in self.packets]
        first = next((i for i, packet in enumerate(self.packets) if packet.is_keyframe), None)
        if (
            first is None
            or None in times
            or self.codec.name in UNTOLD
            or self._has_only_decoding_times(times)
        ):
            return {}
        shown = [
            i
            for i, packet in enumerate(self.packets)
            if i >= first and _is_shown(packet, self.codec.name)
        ]
        position = {
            times[i]: i for i in sorted(shown, key=lambda i: times[i]) if times[i] >= times[first]
        }
        return position if len(position) == sum(times[i] >= times[first] for i in shown) else {}

    def _has_only_decoding_times(self, times: list[int]) -> bool:
        """Whether frames are shown in another order than stored and the times hide it, as in AVI and MXF."""
        return bool(self.codec.has_b_frames) and times == sorted(times)

    @cached_property
    def times(self) -> list[int]:
        """Start times of the frames that a player shows; empty where the packets do not tell."""
        return list(self.position)

    @property
    def last_duration(self) -> int:
        """How long the last frame is shown, if the packets tell."""
        return self.packets[self.position[self.times[-1]]].duration or 0

    @cached_property
    def may_skip(self) -> bool:
        """Whether the codec can leave out frames that no other refers to.

        HEVC marks those that none of the same temporal layer refers to, so there must be one layer only; the header
        of MP4 and Matroska tells. The other codecs do not mark frames, or store several in a packet.
        """
        header = self.codec.extradata or b""
        return self.codec.name == "h264" or (
            self.codec.name == "hevc"
            and len(header) > 22
            and header[0] == 1
            and header[21] >> 3 & 7 == 1
        )

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
        return av.open(
            io.BytesIO(data), container_options=options, metadata_errors="replace", io_open=refuse
        )
    except PermissionError as error:
        raise RefusedMedia(
            "it is not allowed to open what it asks for: a playlist, a script, or locked"
        ) from error
    except DAMAGE as error:
        raise NotAVideo(f"not a video of a known format: {error}") from error


def read_tracks(container: InputContainer) -> list[Track]:
    """The video streams of a file with their packets, the main one first; cover art is no video.

    Raises:
        NotAVideo: there is no video in it.
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
    found = sorted(
        (track for track in tracks.values() if track.packets), key=lambda track: track.rank
    )
    if not found:
        raise NotAVideo("the video stream is empty" if tracks else "no video stream")
    return found


def _packets(container: InputContainer) -> Iterator[av.Packet]:
    """A file's packets up to its end, or to where damage makes the rest unreadable."""
    try:
        yield from (
            packet for packet in container.demux() if packet.size
        )  # an empty one asks to flush
    except (*DAMAGE, IndexError):  # PyAV ends so if a stream turned up on the way
        return


def _set_up(track: Track, max_pixels: int) -> None:
    codec = track.codec
    if codec is None:
        raise MediaError("its video is of an unknown codec")
    if codec.width * codec.height > max_pixels:
        raise TooLarge(
            f"{codec.width} x {codec.height} pixels a frame; the limit is {max_pixels / 1e6:g} megapixels"
        )
    codec.thread_count, codec.thread_type = 1, ThreadType.NONE
    codec.options = {"max_pixels": str(max_pixels)}  # sizes can change inside a stream


class ToRgb:
    """Makes decoded frames of one clip upright RGB pictures of one size."""

    def __init__(self, short_side: int | None) -> None:
        self.short_side = short_side
        self.size: tuple[int, int] | None = (
            None  # of the first frame; a stream can change its size midway
        )
        self.turns = 0
        self.is_mirrored = False

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """uint8 [H, W, 3]; HDR is brought into the range of ordinary screens."""
        if self.size is None:
            self.size = scaled_size(frame.width, frame.height, self.short_side)
            self.turns = round(frame.rotation / 90) % 4
            self.is_mirrored = _is_mirrored(frame)
        is_hdr = frame.color_trc in HDR_TRANSFERS
        scaled = frame.reformat(
            *self.size,
            format="rgb48le" if is_hdr else "rgb24",
            interpolation=None
            if self.size == (frame.width, frame.height)
            else Interpolation.BICUBIC,
            threads=1,
        )
        pixels = scaled.to_ndarray()
        if is_hdr:
            pixels = to_ordinary(
                pixels.astype(np.uint16), is_pq=frame.color_trc == ColorTrc.SMPTE2084
            )
        return np.rot90(pixels[::-1] if self.is_mirrored else pixels, self.turns)


def _is_mirrored(frame: VideoFrame) -> bool:
    """Whether the file asks to mirror its pictures, which is to turn them upside down before they are rotated."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, Buffer):
        return False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return a * d < b * c


Taken = list[tuple[float, NDArray[np.uint8]]]  # seconds and picture of each sampled frame


def take_few(track: Track, num_frames: int, sampling: Sampling, to_rgb: ToRgb) -> Taken:
    """The sampled frames, decoding as few others as can be.

    Empty if the packets do not tell the frames' times, or if a wanted frame does not come out.
    """
    times = track.times
    key_times = [time for time, at in track.position.items() if track.packets[at].is_keyframe]
    if not key_times:
        return []
    if sampling is Sampling.KEYFRAME:
        wanted = keyframe_times(times, key_times, track.last_duration, num_frames)
    else:
        wanted = [times[i] for i in uniform_positions(times, track.last_duration, num_frames)]
    found: dict[int, NDArray[np.uint8]] = {}
    for start, stop in _runs(track, wanted):
        shown = []
        for frame in _decode(track, start, stop, skip_all_but=set(wanted)):
            if frame.pts == track.packets[start].pts and _leans_on_others(frame):
                return []
            if frame.pts in wanted:
                found[frame.pts] = to_rgb(frame)
            shown.append(frame.pts)
        if not _increase(shown):
            return []
    if not found.keys() >= set(wanted):
        return []
    return [(float(time * track.time_base), found[time]) for time in wanted]


def _runs(track: Track, wanted: Sequence[int]) -> list[tuple[int, int]]:
    """Spans of packets to decode: each from a key packet to the last wanted one that needs it."""
    keys = [i for i, packet in enumerate(track.packets) if packet.is_keyframe]
    runs: list[tuple[int, int]] = []
    for at in sorted({track.position[time] for time in wanted}):
        time = track.packets[at].pts
        # Frames shown before a key frame but stored behind it lean on the one before it.
        start = next(
            (i for i in reversed(keys[: bisect_right(keys, at)]) if track.packets[i].pts <= time), 0
        )
        while runs and start < runs[-1][1]:
            start = min(start, runs.pop()[0])
        runs.append((start, at + 1))
    return runs


def _decode(
    track: Track, start: int, stop: int, skip_all_but: set[int] | None = None
) -> Iterator[VideoFrame]:
    """Decode packets `start` to `stop`, which begin with a key packet; what cannot be decoded is left out.

    Frames that no other refers to are skipped unless their time is in `skip_all_but`; None: all come.
    """
    codec = track.codec
    if codec.is_open:
        codec.flush_buffers()
    codec.skip_frame = "DEFAULT"
    for packet in [*track.packets[start:stop], None]:  # None drains the codec
        if track.may_skip and packet is not None and skip_all_but is not None:
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
    stated = [frame.pts for frame in _decode(track, *every)]
    if not stated:
        return []
    if _increase(stated):
        times, unit = stated, track.time_base
    else:  # the frames do not say when they are shown, so they are numbered
        times, unit = list(range(len(stated))), 1 / (track.stream.guessed_rate or Fraction(1))
    wanted = uniform_positions(times, 0, num_frames)
    found: dict[int, NDArray[np.uint8]] = {}
    for i, frame in enumerate(_decode(track, *every)):
        if i in wanted:
            found[i] = to_rgb(frame)
            if len(found) == len(set(wanted)):
                break
    return [(float(times[i] * unit), found[i]) for i in wanted]


def _increase(times: list[int | None]) -> TypeGuard[list[int]]:
    """Whether the times of frames, in the order that the codec shows them in, are all known and make sense."""
    known = [time for time in times if time is not None]
    return len(known) == len(times) and all(a < b for a, b in pairwise(known))


def _leans_on_others(frame: VideoFrame) -> bool:
    """Whether a frame is no key frame, although its packet may be called one, as all packets of H.263 in AVI are."""
    return not frame.key_frame and frame.pict_type in (PictureType.P, PictureType.B)


def _is_shown(packet: av.Packet, codec: str) -> bool:
    """Whether a player shows what is in a packet. VP8 stores frames for others to refer to in packets of their own."""
    return not packet.is_discard and (codec != "vp8" or bool(memoryview(packet)[0] & 0x10))
