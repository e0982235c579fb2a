"""Frames out of any video: the decoders in the order that measurement put them (docs/benchmarks.md)."""

from ampere.media.decoder import DEFAULT_MAX_PIXELS, Clip, Decoder, MediaError, Sampling
from ampere.media.decord_decoder import DecordDecoder
from ampere.media.pyav_decoder import PyavDecoder

DECODERS: tuple[Decoder, ...] = (PyavDecoder(), DecordDecoder())


def decode_video(
    data: bytes,
    num_frames: int,
    *,
    sampling: Sampling = Sampling.UNIFORM,
    short_side: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Clip:
    """Sampled frames by the first decoder that gives them; parameters and errors are those of `Decoder.decode`.

    A file that one decoder refuses for its size or for what it would open is not handed to the next.
    """
    problems = []
    for decoder in DECODERS:
        try:
            return decoder.decode(data, num_frames, sampling=sampling, short_side=short_side, max_pixels=max_pixels)
        except MediaError as error:
            if type(error) is not MediaError:
                raise
            problems.append(f"{decoder.name}: {error}")
    raise MediaError("; ".join(problems))
