"""Write drawn frames as a video file like a phone's: H.264 in MP4, with or without sound."""

import math
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SOUND_HZ = 8_000


def encode_clip(path: Path, frames: Iterable[np.ndarray], fps: int, tone_hz: float | None) -> None:
    """Encode frames as H.264 in MP4.

    Args:
        path: of the file.
        frames: uint8 [H, W, 3], RGB.
        fps: frames per second.
        tone_hz: pitch of a hum as AAC sound; None writes no audio stream.
    """
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream(
            "libx264", rate=fps, options={"preset": "ultrafast", "crf": "32", "threads": "1"}
        )
        video.pix_fmt, video.gop_size = "yuv420p", 8
        audio = None
        if tone_hz is not None:
            # The encoder's default search would take longer than all the pictures.
            audio = container.add_stream(
                "aac", rate=SOUND_HZ, layout="mono", options={"aac_coder": "fast"}
            )
        count = 0
        for count, pixels in enumerate(frames, start=1):
            if count == 1:
                video.height, video.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = count - 1, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and tone_hz is not None:
            time_s = np.arange(count * SOUND_HZ // fps) / SOUND_HZ
            sound = (
                0.2 * np.sin(math.tau * tone_hz * time_s) * np.sin(math.tau * 3 * time_s)
            ).astype(np.float32)
            block = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            block.sample_rate, block.pts = SOUND_HZ, 0
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
