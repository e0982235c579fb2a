"""Frames out of any video: the decoders in the order that measurement put them (docs/benchmarks.md)."""

from ampere.media.decoder import DEFAULT_MAX_PIXELS, Clip, Decoder, MediaError, Sampling
from ampere.media.decord_decoder import DecordDecoder
from ampere.media.pyav_decoder import PyavDecoder
from ampere.media.source import MAX_BYTES, load

DECODERS: tuple[Decoder, ...] = (PyavDecoder(), DecordDecoder())


def decode_video(
    source: str | bytes,
    num_frames: int,
    *,
    sampling: Sampling = Sampling.UNIFORM,
    short_side: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Clip:
    """Sampled frames of a path, a URI or bytes, by the first decoder that gives them.

    The other parameters and the errors are those of `Decoder.decode`, and those of `load`.

    The next decoder gets a file only if it has a video that the last one could not decode: what was refused for its
    size stays refused, and decord would open the sockets that a text file asks for.
    """
    data, problems = load(source, MAX_BYTES), []
    for decoder in DECODERS:
        try:
            return decoder.decode(
                data, num_frames, sampling=sampling, short_side=short_side, max_pixels=max_pixels
            )
        except MediaError as error:
            if type(error) is not MediaError:
                raise
            problems.append(f"{decoder.name}: {error}")
    raise MediaError("; ".join(problems))
