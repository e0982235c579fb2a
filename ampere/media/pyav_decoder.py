"""Decoding by PyAV (FFmpeg), the first choice: it reads most files and decodes the fewest frames.

The packets of a file are read once, without seeking, so files without an index work as well as
others. From the key packet before each wanted frame, packets are sent to the codec up to that
frame; frames that no other frame refers to are skipped unless they are wanted themselves. If the
packets' times are unreliable, or a wanted frame is not decoded, all frames are decoded and sampled
uniformly.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import TypeGuard

import av
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

from ampere.media.container import DAMAGE, open_container, packets_of
from ampere.media.decoder import (
    MAX_PIXEL_ASPECT,
    Clip,
    FrameRequest,
    MediaError,
    Sampling,
    TooLarge,
    UnknownFormat,
    display_size,
    pixel_limit_message,
    scaled_size,
)
from ampere.media.hdr import to_sdr
from ampere.media.sampling import keyframe_times, uniform_positions

UNRELIABLE_KEYFRAME_CODECS = {"apng"}  # FFmpeg marks packets of these as key frames wrongly
HDR_TRANSFERS = {ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67}


class PyavDecoder:
    """Uses one thread per video: the decode stage runs many videos at once."""

    name = "pyav"

    def decode(self, data: bytes, request: FrameRequest) -> Clip:
        """See `Decoder.decode`; a file with damage or unreliable times is sampled uniformly."""
        with open_container(data) as container:
            tracks = read_tracks(container)
            if is_picture(container, tracks):
                request = replace(request, num_frames=1)
            for track in tracks:
                _configure(track, request.max_pixels)
                to_rgb = ToRgb(request.short_side, track.pixel_aspect)
                taken = take_few(track, request, to_rgb)
                taken = taken or take_from_all(track, request.num_frames, to_rgb)
                if taken:
                    seconds, frames = zip(*taken, strict=True)
                    return Clip(
                        frames=np.stack(frames), timestamps_s=np.array(seconds), decoder=self.name
                    )
        packets = ", ".join(
            f"{len(track.packets)} packets of {track.stream.name}" for track in tracks
        )
        raise MediaError(f"no frame could be decoded ({packets})")


@dataclass
class Track:
    """One video stream with its packets, in decoding order."""

    stream: VideoStream
    packets: list[av.Packet] = field(default_factory=list)

    @property
    def codec(self) -> VideoCodecContext:
        """The stream's decoder; None if FFmpeg does not know the codec."""
        return self.stream.codec_context

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick of the stream's times."""
        return self.stream.time_base or Fraction(1)

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel divided by its height; 1 if the file does not say, or implausibly."""
        aspect = self.stream.sample_aspect_ratio or Fraction(1)
        return aspect if 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT else Fraction(1)

    @cached_property
    def time_problem(self) -> str | None:
        """Why the packets' times cannot be used to locate frames; None if they can."""
        times = [packet.pts for packet in self.packets]
        if self.codec.name in UNRELIABLE_KEYFRAME_CODECS:
            return f"{self.codec.name} packets are marked as key frames wrongly"
        if not any(packet.is_keyframe for packet in self.packets):
            return "no key frame"
        if None in times:
            return "packets without a time"
        if self.codec.has_b_frames and times == sorted(times):
            # Frames are shown in another order than stored, but the times hide it: AVI and MXF.
            return "decoding times instead of presentation times"
        if len({times[i] for i in self._shown}) < len(self._shown):
            return "several frames at one time"
        return None

    @cached_property
    def _shown(self) -> list[int]:
        """Indices of the packets whose frames a player shows, in decoding order.

        A recording may start midway: frames before its first key frame cannot be decoded.
        """
        first = next(i for i, packet in enumerate(self.packets) if packet.is_keyframe)
        start = self.packets[first].pts
        return [
            i
            for i, packet in enumerate(self.packets)
            if i >= first and packet.pts >= start and _is_shown(packet, self.codec.name)
        ]

    @cached_property
    def position(self) -> dict[int, int]:
        """Start time of each frame that a player shows -> index of its packet, in time order.

        Empty if the times are unreliable (`time_problem`).
        """
        if self.time_problem:
            return {}
        in_time_order = sorted(self._shown, key=lambda i: self.packets[i].pts)
        return {self.packets[i].pts: i for i in in_time_order}

    @cached_property
    def times(self) -> list[int]:
        """Start times of the frames that a player shows; empty if they are unreliable."""
        return list(self.position)

    @property
    def last_duration(self) -> int:
        """Duration of the last frame; 0 if unknown."""
        return self.packets[self.position[self.times[-1]]].duration or 0

    @cached_property
    def may_skip(self) -> bool:
        """Whether the codec can skip frames that no other refers to.

        HEVC marks frames that none of the same temporal layer refers to, so there must be only one
        layer, by the header of MP4 and Matroska. The other codecs do not mark frames, or store
        several in a packet.
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
        """Sort key of the main stream: not a still image, the file's default, the first."""
        is_default = bool(self.stream.disposition & Disposition.default)
        return len(self.packets) < 2, not is_default, self.stream.index


def read_tracks(container: InputContainer) -> list[Track]:
    """The video streams of a file with their packets, the main one first, without cover art.

    Raises:
        UnknownFormat: the file has no video.
    """
    tracks = {}
    for stream in container.streams:
        if isinstance(stream, VideoStream) and not stream.disposition & Disposition.attached_pic:
            tracks[stream.index] = Track(stream)
        else:
            stream.discard = Discard.all
    for packet in packets_of(container):
        if packet.stream_index in tracks:
            tracks[packet.stream_index].packets.append(packet)
    filled = [track for track in tracks.values() if track.packets]
    if not filled:
        raise UnknownFormat("the video stream is empty" if tracks else "no video stream")
    return sorted(filled, key=lambda track: track.rank)


def is_picture(container: InputContainer, tracks: list[Track]) -> bool:
    """Whether a file is a single picture, of a format such as OpenEXR that only FFmpeg reads."""
    return container.format.name.endswith("_pipe") and len(tracks[0].packets) == 1


def pixel_aspect_of(data: bytes) -> Fraction:
    """The pixel aspect of a file's main video stream, as `Track.pixel_aspect`.

    Raises:
        UnknownFormat: the file has no video.
    """
    with open_container(data) as container:
        return read_tracks(container)[0].pixel_aspect


def _configure(track: Track, max_pixels: int) -> None:
    """Check the codec and its frame size; set one thread and the limit for later size changes."""
    codec = track.codec
    if codec is None:
        raise MediaError("unknown video codec")
    width, height = display_size(codec.width, codec.height, track.pixel_aspect)
    if width * height > max_pixels:
        raise TooLarge(pixel_limit_message(width, height, max_pixels))
    codec.thread_count, codec.thread_type = 1, ThreadType.NONE
    codec.options = {"max_pixels": str(max_pixels)}  # sizes can change inside a stream


class ToRgb:
    """Converts the decoded frames of one clip to upright RGB pictures of one size.

    Args:
        short_side: as in `FrameRequest`.
        pixel_aspect: width of a pixel divided by its height, before rotation.
    """

    def __init__(self, short_side: int | None, pixel_aspect: Fraction) -> None:
        self.short_side = short_side
        self.pixel_aspect = pixel_aspect
        # Width and height of the first frame, scaled; a stream can change its size midway.
        self.size: tuple[int, int] | None = None
        self.turns = 0
        self.is_mirrored = False

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert one frame to uint8 [H, W, 3]; HDR is converted to SDR."""
        if self.size is None:
            square = display_size(frame.width, frame.height, self.pixel_aspect)
            self.size = scaled_size(*square, self.short_side)
            self.turns = round(frame.rotation / 90) % 4
            self.is_mirrored = _is_mirrored(frame)
        is_hdr = frame.color_trc in HDR_TRANSFERS
        is_scaled = self.size != (frame.width, frame.height)
        scaled = frame.reformat(
            *self.size,
            format="rgb48le" if is_hdr else "rgb24",
            interpolation=Interpolation.BICUBIC if is_scaled else None,
            threads=1,
        )
        pixels = scaled.to_ndarray()
        if is_hdr:
            is_pq = frame.color_trc == ColorTrc.SMPTE2084
            pixels = to_sdr(pixels.astype(np.uint16), is_pq=is_pq)
        return np.rot90(pixels[::-1] if self.is_mirrored else pixels, self.turns)


def _is_mirrored(frame: VideoFrame) -> bool:
    """Whether the display matrix mirrors the picture: a vertical flip before the rotation."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know a type of FFmpeg's, such as EXIF
        return False
    if not isinstance(matrix, Buffer):
        return False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return a * d < b * c


Taken = list[tuple[float, NDArray[np.uint8]]]  # seconds and picture of each sampled frame


def take_few(track: Track, request: FrameRequest, to_rgb: ToRgb) -> Taken:
    """The sampled frames, decoding as few others as possible.

    Empty if the packets' times are unreliable, or if a wanted frame is not decoded.
    """
    wanted = _wanted_times(track, request)
    pictures: dict[int, NDArray[np.uint8]] = {}
    for start, stop in _runs(track, wanted):
        decoded = _decode_run(track, start, stop, set(wanted), to_rgb)
        if decoded is None:
            return []
        pictures |= decoded
    if not pictures.keys() >= set(wanted):
        return []
    return [(float(time * track.time_base), pictures[time]) for time in wanted]


def _wanted_times(track: Track, request: FrameRequest) -> list[int]:
    """Start times of the sampled frames; empty if times are unreliable or no key frame is shown."""
    times = track.times
    key_times = [time for time, at in track.position.items() if track.packets[at].is_keyframe]
    if not key_times:
        return []
    if request.sampling is Sampling.KEYFRAME:
        return keyframe_times(times, key_times, track.last_duration, request.num_frames)
    return [times[i] for i in uniform_positions(times, track.last_duration, request.num_frames)]


def _decode_run(
    track: Track, start: int, stop: int, wanted: set[int], to_rgb: ToRgb
) -> dict[int, NDArray[np.uint8]] | None:
    """The wanted pictures of packets `start` to `stop` by time.

    None if the packets' marks were wrong: the first is no key frame, or the times do not increase.
    """
    pictures, shown = {}, []
    for frame in _decode(track, start, stop, skip_all_but=wanted):
        if frame.pts == track.packets[start].pts and _depends_on_others(frame):
            return None
        if frame.pts in wanted:
            pictures[frame.pts] = to_rgb(frame)
        shown.append(frame.pts)
    return pictures if _increase(shown) else None


def _runs(track: Track, wanted: Sequence[int]) -> list[tuple[int, int]]:
    """Spans of packets to decode: each from a key packet to the last wanted one that needs it."""
    keys = [i for i, packet in enumerate(track.packets) if packet.is_keyframe]
    runs: list[tuple[int, int]] = []
    for at in sorted({track.position[time] for time in wanted}):
        time = track.packets[at].pts
        # Frames shown before a key frame but stored after it depend on the previous key frame.
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
    """Decode packets `start` to `stop`, of which the first is a key packet; omit damaged frames.

    Frames that no other refers to are skipped unless their time is in `skip_all_but`; None skips
    no frame.
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
    """Frames sampled uniformly from all that can be decoded; empty if there are none.

    The video is decoded twice: to count the frames, and to convert the sampled ones.
    """
    whole = (0, len(track.packets))
    stated = [frame.pts for frame in _decode(track, *whole)]
    if not stated:
        return []
    if _increase(stated):
        times, unit = stated, track.time_base
    else:  # the frames have no usable times, so they are numbered
        times, unit = list(range(len(stated))), 1 / (track.stream.guessed_rate or Fraction(1))
    wanted = uniform_positions(times, 0, num_frames)
    pictures: dict[int, NDArray[np.uint8]] = {}
    for i, frame in enumerate(_decode(track, *whole)):
        if i in wanted:
            pictures[i] = to_rgb(frame)
            if len(pictures) == len(set(wanted)):
                break
    return [(float(times[i] * unit), pictures[i]) for i in wanted]


def _increase(times: list[int | None]) -> TypeGuard[list[int]]:
    """Whether the times of frames, in the order the codec returns them, are known and increase."""
    known = [time for time in times if time is not None]
    return len(known) == len(times) and all(a < b for a, b in pairwise(known))


def _depends_on_others(frame: VideoFrame) -> bool:
    """Whether a frame is no key frame, though its packet may be marked as one (H.263 in AVI)."""
    return not frame.key_frame and frame.pict_type in (PictureType.P, PictureType.B)


def _is_shown(packet: av.Packet, codec: str) -> bool:
    """Whether a player shows the frame of a packet.

    VP8 stores frames that only serve as reference for others in packets of their own.
    """
    return not packet.is_discard and (codec != "vp8" or bool(memoryview(packet)[0] & 0x10))
