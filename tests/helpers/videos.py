"""Small generated videos whose frames encode their number, and plain PyAV decoding as reference."""

import io
from collections.abc import Callable, Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation

RATE = 25
BITS = 6
X265 = "log-level=none:pools=1:frame-threads=1"


def numbered_frames(count: int, width: int = 128, height: int = 96) -> np.ndarray:
    """Frames uint8 [count, H, W, 3]: above, the number as six bars; below, a moving texture."""
    numbers, columns = np.arange(count), np.arange(width) * BITS // width
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = np.where(numbers[:, None] >> columns & 1, 235, 20)[:, None, :, None]
    texture = (
        np.random.default_rng(0)
        .integers(60, 200, (height // 16 + 1, width // 8 + count, 3))
        .astype(np.uint8)
    )
    texture = texture.repeat(8, axis=0).repeat(8, axis=1)[: height - height // 2]
    for i in numbers:
        frames[i, height // 2 :] = texture[:, 3 * i : 3 * i + width]
    return frames


def numbers_of(frames: np.ndarray) -> list[int]:
    """The numbers of `numbered_frames`, whatever their size."""
    _, height, width, _ = frames.shape
    middles = (np.arange(BITS) * 2 + 1) * width // (2 * BITS)
    bars = frames[:, height // 4][:, middles].mean(axis=-1) > 128
    return (bars << np.arange(BITS)).sum(axis=1).tolist()


def encode(
    codec: str,
    frames: np.ndarray,
    *,
    kind: str = "mp4",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    set_up: Callable[
        [av.container.OutputContainer, av.VideoStream], None
    ] = lambda container, stream: None,
) -> bytes:
    """Encode a video file of frames uint8 [N, H, W, 3], by default 25 a second.

    Args:
        codec, options: FFmpeg's encoder.
        kind, muxer: FFmpeg's container, and its options.
        times: of each frame, in 25ths of a second.
        set_up: called with the container and its stream before the first frame.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options=muxer or {}) as container:
        video = container.add_stream(codec, rate=RATE, options=options or {})
        video.pix_fmt, video.width, video.height = pix_fmt, frames.shape[2], frames.shape[1]
        video.codec_context.thread_count = 1
        set_up(container, video)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format=pix_fmt, threads=1
            )
            frame.pts, frame.time_base = times[i] if times else i, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return file.getvalue()


def packets_of(data: bytes) -> list[av.Packet]:
    """The packets of a file's first video stream."""
    with av.open(io.BytesIO(data)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def remux(
    files: Sequence[bytes],
    kind: str,
    *,
    change: Callable[[list[av.Packet]], list[av.Packet]] = lambda packets: packets,
    set_up: Callable[[list[av.VideoStream]], None] = lambda streams: None,
) -> bytes:
    """Combine the first video streams of files into one file, with `change` applied to packets."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        sources = [av.open(io.BytesIO(data)) for data in files]
        streams = [
            container.add_stream_from_template(source.streams.video[0]) for source in sources
        ]
        set_up(streams)
        for source, stream in zip(sources, streams, strict=True):
            for packet in change([packet for packet in source.demux(video=0) if packet.size]):
                packet.stream = stream
                container.mux(packet)
            source.close()
    return file.getvalue()


def upright(frame: av.VideoFrame, stream: av.VideoStream) -> np.ndarray:
    """A frame as a player shows it: with square pixels, and rotated; uint8 [H, W, 3]."""
    aspect, width, height = stream.sample_aspect_ratio or 1, frame.width, frame.height
    if aspect != 1:
        size = max(width, round(width * aspect)), max(height, round(height / aspect))
        frame = frame.reformat(*size, format="rgb24", interpolation=Interpolation.BICUBIC)
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)


def reference(data: bytes) -> tuple[np.ndarray, list[float]]:
    """Every frame of a file by plain PyAV decoding, upright with square pixels, and their times.

    Returns:
        uint8 [N, H, W, 3], and seconds.
    """
    pictures, times = [], []
    with av.open(io.BytesIO(data), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            pictures.append(upright(frame, stream))
            times.append(frame.time)
    return np.stack(pictures), times
