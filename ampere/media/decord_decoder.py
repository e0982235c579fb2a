"""Decoding by decord, which seeks to the key frame before each wanted frame.

Frames are exact where each key frame stands alone, as in H.264 of the usual encoders. With open groups of pictures, the
default of HEVC encoders, decord gives frames a few away from the wanted ones, or refuses the file.
"""

import io

import numpy as np

from ampere.media.decoder import Clip, MediaError, uniform_indices


class DecordDecoder:
    """The decoder of first choice. One thread per video: the stage runs many videos at once."""

    name = "decord"

    def decode(self, data: bytes, num_frames: int) -> Clip:
        import decord

        try:
            reader = decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), num_threads=1)
            indices = uniform_indices(len(reader), num_frames)
            frames = reader.get_batch(indices).asnumpy()
            # decord gives each frame's display interval; its start is the frame's time.
            timestamps = np.asarray(reader.get_frame_timestamp(indices), dtype=np.float64)[:, 0]
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise MediaError(f"decord cannot read this video: {str(error).strip().splitlines()[-1:]}") from error
        if len(frames) != num_frames:
            raise MediaError(f"decord gave {len(frames)} frames where {num_frames} were asked for")
        return Clip(frames=frames, timestamps_s=timestamps)
