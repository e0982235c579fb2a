"""Small generated audio tracks: a tone that begins at a known time."""

import io
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from tests.helpers.videos import RATE, numbered_frames

FRAME = 1000  # samples per frame given to an encoder
AMPLITUDE = 0.5


def tone(
    seconds: float, *, onset_s: float = 0.5, pitch: float = 1000, rate: int = 16_000
) -> NDArray[np.float32]:
    """Silence, then a sine from `onset_s` on; float32 [N]."""
    times = np.arange(round(seconds * rate)) / rate
    sine = AMPLITUDE * np.sin(2 * np.pi * pitch * (times - onset_s))
    return np.where(times >= onset_s, sine, 0).astype(np.float32)


def onset_s(samples: NDArray[np.float32], rate: int = 16_000) -> float:
    """When a tone begins: its first sample over a fifth of its maximum."""
    level = np.abs(samples)
    return float(np.argmax(level > level.max() / 5)) / rate


def amplitude(samples: NDArray[np.float32]) -> float:
    """Of a sine that fills the samples, by its root mean square."""
    return float(np.sqrt(2 * np.mean(samples.astype(float) ** 2)))


def encode_audio(
    codec: str,
    kind: str,
    tracks: list[NDArray[np.float32]],
    *,
    rate: int = 48_000,
    layout: str = "stereo",
    channels: tuple[int, ...] | None = None,
    start_s: float = 0.0,
    num_pictures: int = 0,
    default: int | None = None,
    change: Callable[[list[av.Packet]], list[av.Packet]] = lambda packets: packets,
) -> bytes:
    """Encode a file with one track for each signal, float32 [N] at `rate`.

    Args:
        codec, kind: FFmpeg's encoder and container.
        channels: those that have the signal; None: all.
        start_s: time of the first sample.
        num_pictures: of a video track from time 0 on, 25 a second; 0: no video track.
        default: the track with the default disposition; None: as the container has it.
        change: applied to the packets before they are written.
    """
    file = io.BytesIO()
    packets: list[av.Packet] = []
    with av.open(file, "w", format=kind) as container:
        if num_pictures:
            video = container.add_stream("libx264", rate=RATE)
            video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
            video.codec_context.thread_count = 1
        streams = [container.add_stream(codec, rate=rate, layout=layout) for _ in tracks]
        for i, stream in enumerate(streams):
            if default is not None:
                stream.disposition = Disposition.default if i == default else Disposition(0)
        if num_pictures:
            for i, pixels in enumerate(numbered_frames(num_pictures)):
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                picture.pts, picture.time_base = i, Fraction(1, RATE)
                packets += video.encode(picture)
            packets += video.encode(None)
        for stream, signal in zip(streams, tracks, strict=True):
            number = stream.codec_context.layout.nb_channels
            used = range(number) if channels is None else channels
            for start in range(0, len(signal), FRAME):
                part = signal[start : start + FRAME]
                mixed = np.zeros((len(part), number), np.float32)
                mixed[:, list(used)] = part[:, None]
                frame = av.AudioFrame.from_ndarray(mixed.reshape(1, -1), "flt", layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = start + round(start_s * rate)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in change(packets):
            container.mux(packet)
    return file.getvalue()
