"""Decode any video: the decoders in order of preference (docs/development/benchmarks.md)."""

from ampere.media.decoder import Clip, Decoder, FrameRequest, MediaError
from ampere.media.decord_decoder import DecordDecoder
from ampere.media.pyav_decoder import PyavDecoder
from ampere.media.source import MAX_BYTES, load

DECODERS: tuple[Decoder, ...] = (PyavDecoder(), DecordDecoder())


def decode_video(source: str | bytes, request: FrameRequest) -> Clip:
    """Decode the requested frames of a path, a URI or bytes with the first decoder that can.

    The next decoder is tried only for a video that the previous one could not decode. A file that
    is refused stays refused, since decord would open the sockets that a text file asks for.

    Raises:
        MediaError: as `load` and `Decoder.decode` raise it.
    """
    data, errors = load(source, MAX_BYTES), []
    for decoder in DECODERS:
        try:
            return decoder.decode(data, request)
        except MediaError as error:
            if type(error) is not MediaError:
                raise
            errors.append(f"{decoder.name}: {error}")
    raise MediaError("; ".join(errors))
