"""Decoding by decord, for what PyAV opens and cannot decode.

Not the first choice, as docs/benchmarks.md shows: it decodes every frame from the key frame on, gives frames a few
away from the wanted ones where groups of pictures are open (the default of HEVC encoders), and refuses more files.
"""

import io

import numpy as np
from PIL import Image

from ampere.media.decoder import DEFAULT_MAX_PIXELS, Clip, MediaError, Sampling, TooLarge
from ampere.media.images import scale_down
from ampere.media.sampling import keyframe_times, uniform_indices


class DecordDecoder:
    """One thread per video: the stage runs many videos at once."""

    name = "decord"

    def decode(
        self,
        data: bytes,
        num_frames: int,
        *,
        sampling: Sampling = Sampling.UNIFORM,
        short_side: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Clip:
        import decord

        try:
            reader = decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), num_threads=1)
            indices = uniform_indices(len(reader), num_frames)
            if sampling is Sampling.KEYFRAME:
                indices = keyframe_times(
                    range(len(reader)), list(reader.get_key_indices()), 1, num_frames
                )
            frames = reader.get_batch(indices).asnumpy()
            # decord gives each frame's display interval; its start is the frame's time.
            timestamps = np.asarray(reader.get_frame_timestamp(indices), dtype=np.float64)[:, 0]
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise MediaError(
                f"decord cannot read this video: {str(error).strip().splitlines()[-1:]}"
            ) from error
        if len(frames) != num_frames:
            raise MediaError(f"decord gave {len(frames)} frames where {num_frames} were asked for")
        if frames.shape[1] * frames.shape[2] > max_pixels:
            raise TooLarge(
                f"{frames.shape[2]} x {frames.shape[1]} pixels a frame; the limit is {max_pixels / 1e6:g} megapixels"
            )
        if short_side is not None:
            frames = np.stack(
                [np.asarray(scale_down(Image.fromarray(frame), short_side)) for frame in frames]
            )
        return Clip(frames=frames, timestamps_s=timestamps, decoder=self.name)
