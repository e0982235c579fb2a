"""Small videos made on the spot, whose pictures tell their number, and PyAV's plain decoding of them to compare with."""

import io
from collections.abc import Callable, Sequence
from fractions import Fraction

import av
import numpy as np

RATE = 25
BITS = 6
X265 = "log-level=none:pools=1:frame-threads=1"


def numbered_frames(count: int, width: int = 128, height: int = 96) -> np.ndarray:
    """Frames uint8 [count, H, W, 3]: above, the number in six black or white bars; below, a texture that moves."""
    numbers, columns = np.arange(count), np.arange(width) * BITS // width
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = np.where(numbers[:, None] >> columns & 1, 235, 20)[:, None, :, None]
    texture = np.random.default_rng(0).integers(60, 200, (height // 16 + 1, width // 8 + count, 3)).astype(np.uint8)
    texture = texture.repeat(8, axis=0).repeat(8, axis=1)[: height - height // 2]
    for i in numbers:
        frames[i, height // 2 :] = texture[:, 3 * i : 3 * i + width]
    return frames


def numbers_of(frames: np.ndarray) -> list[int]:
    """Which of `numbered_frames` these are, whatever their size."""
    count, height, width, _ = frames.shape
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
    time_base: Fraction = Fraction(1, RATE),
    change: Callable[[av.VideoFrame], None] = lambda frame: None,
    set_up: Callable[[av.container.OutputContainer, av.video.stream.VideoStream], None] = lambda container, stream: None,
) -> bytes:
    """A video file of frames uint8 [N, H, W, 3], by default one each 25th of a second.

    Args:
        kind: FFmpeg's name of the container.
        options, muxer: for the encoder and for the container.
        times: of each frame, in `time_base`.
        change: done to each frame before it is encoded.
        set_up: done to the container and its stream before the first frame.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options=muxer or {}) as container:
        video = container.add_stream(codec, rate=RATE, options=options or {})
        video.pix_fmt, video.width, video.height = pix_fmt, frames.shape[2], frames.shape[1]
        video.codec_context.thread_count = 1
        if times is not None:
            video.codec_context.time_base = time_base
        set_up(container, video)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt, threads=1)
            frame.pts, frame.time_base = times[i] if times else i, time_base
            change(frame)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return file.getvalue()


def reference(data: bytes) -> tuple[np.ndarray, list[float]]:
    """Every frame that FFmpeg's decoder gives, upright, with its times: uint8 [N, H, W, 3] and seconds."""
    pictures, times = [], []
    with av.open(io.BytesIO(data), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            pictures.append(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))
            times.append(frame.time)
    return np.stack(pictures), times
