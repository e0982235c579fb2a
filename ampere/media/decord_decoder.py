"""Decoding by decord, the fallback for files that PyAV opens but cannot decode.

It is not the first choice (measured in docs/development/benchmarks.md): it decodes every frame from
the key frame on, returns neighbors of the wanted frames where groups of pictures are open (the
default of HEVC encoders), and refuses more files.
"""

import io

import numpy as np
from PIL import Image

from ampere.media.decoder import (
    Clip,
    FrameRequest,
    MediaError,
    Sampling,
    TooLarge,
    pixel_limit_message,
)
from ampere.media.images import scale_down
from ampere.media.pyav_decoder import pixel_aspect_of
from ampere.media.sampling import keyframe_times, uniform_indices


class DecordDecoder:
    """Uses one thread per video: the decode stage runs many videos at once."""

    name = "decord"

    def decode(self, data: bytes, request: FrameRequest) -> Clip:
        """See `Decoder.decode`; frames are counted, whatever their times."""
        import decord

        num_frames = request.num_frames
        if (aspect := pixel_aspect_of(data)) != 1:
            raise MediaError(f"decord ignores the sample aspect ratio of this video ({aspect})")
        try:
            reader = decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), num_threads=1)
            indices = uniform_indices(len(reader), num_frames)
            if request.sampling is Sampling.KEYFRAME:
                keys = list(reader.get_key_indices())
                indices = keyframe_times(range(len(reader)), keys, 1, num_frames)
            frames = reader.get_batch(indices).asnumpy()
            # decord gives each frame's display interval; its start is the frame's time.
            timestamps = np.asarray(reader.get_frame_timestamp(indices), dtype=np.float64)[:, 0]
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            last_line = str(error).strip().splitlines()[-1:]
            raise MediaError(f"decord cannot read this video: {last_line}") from error
        if len(frames) != num_frames:
            raise MediaError(f"decord returned {len(frames)} frames; expected {num_frames}")
        height, width = frames.shape[1:3]
        if height * width > request.max_pixels:
            raise TooLarge(pixel_limit_message(width, height, request.max_pixels))
        if request.short_side is not None:
            images = (scale_down(Image.fromarray(frame), request.short_side) for frame in frames)
            frames = np.stack([np.asarray(image) for image in images])
        return Clip(frames=frames, timestamps_s=timestamps, decoder=self.name)
