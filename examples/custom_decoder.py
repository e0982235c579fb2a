"""A decoder of your own: a file of raw RGB frames, read beside the built-in decoders.

    python examples/custom_decoder.py

A decoder implements the `Decoder` protocol of `ampere/media/decoder.py`: a name, and `decode`. It
raises `MediaError` for a file that it cannot read, so that the next decoder is tried. A subclass of
it, such as `TooLarge`, is final.
"""

import struct

import numpy as np

from ampere.media.decoder import (
    Clip,
    Decoder,
    FrameRequest,
    MediaError,
    TooLarge,
    pixel_limit_message,
)
from ampere.media.sampling import uniform_indices
from ampere.media.video import DECODERS

MAGIC = b"RAWV"
HEADER = struct.Struct("<4sIIIf")  # magic, frames, height, width, frames per second


class Truncated(MediaError):
    """The file is shorter than its header says."""


class RawDecoder:
    """Uncompressed RGB frames behind a header of 20 bytes."""

    name = "raw"

    def decode(self, data: bytes, request: FrameRequest) -> Clip:
        """Return the requested frames at their stored size.

        Raises:
            MediaError: the file is of another format.
            Truncated: the file ends within a frame, or has none.
            TooLarge: a frame has more pixels than the request allows.
        """
        if not data.startswith(MAGIC) or len(data) < HEADER.size:
            raise MediaError("not a raw video")
        _, count, height, width, rate = HEADER.unpack_from(data)
        if height * width > request.max_pixels:
            raise TooLarge(pixel_limit_message(width, height, request.max_pixels))
        if count == 0 or len(data) < HEADER.size + count * height * width * 3:
            raise Truncated(f"{len(data)} bytes are too few for {count} frames")
        frames = np.frombuffer(data, np.uint8, count * height * width * 3, HEADER.size)
        indices = uniform_indices(count, request.num_frames)
        return Clip(
            frames=frames.reshape(count, height, width, 3)[indices],
            timestamps_s=np.array(indices) / rate,
            decoder=self.name,
        )


def write_raw(frames: np.ndarray, rate: float) -> bytes:
    """A raw video of frames, uint8 [n, H, W, 3]."""
    return HEADER.pack(MAGIC, *frames.shape[:3], rate) + frames.tobytes()


def decode(data: bytes, request: FrameRequest) -> Clip:
    """Decode with our decoder first, then with those of ampere."""
    decoders: tuple[Decoder, ...] = (RawDecoder(), *DECODERS)
    errors = []
    for decoder in decoders:
        try:
            return decoder.decode(data, request)
        except MediaError as error:
            if type(error) is not MediaError:  # refused, which no other decoder may change
                raise
            errors.append(f"{decoder.name}: {error}")
    raise MediaError("; ".join(errors))


def main() -> None:
    """Write a raw video of 100 frames and sample eight of them."""
    shades = np.arange(100, dtype=np.uint8).reshape(-1, 1, 1, 1)
    video = write_raw(np.broadcast_to(shades, (100, 24, 32, 3)), rate=25.0)
    clip = decode(video, FrameRequest(num_frames=8))
    print(f"{clip.decoder}: frames {clip.frames.shape} at {clip.timestamps_s.tolist()} s")


if __name__ == "__main__":
    main()
