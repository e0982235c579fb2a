"""Open a media file held in memory with PyAV (FFmpeg), and read its packets."""

import io
from collections.abc import Iterator

import av
import av.error
from av.container import InputContainer

from ampere.media.decoder import RefusedMedia, UnknownFormat

# What PyAV raises on damaged files: FFmpeg's errors, which are also built-in ones, and its own on
# malformed metadata.
DAMAGE = (av.error.FFmpegError, ValueError, OSError)


def open_container(data: bytes) -> InputContainer:
    """Open a media file that may read nothing but itself.

    Raises:
        RefusedMedia: the file would open other files or the network.
        UnknownFormat: FFmpeg does not know the format.
    """

    def refuse(url: str, flags: int, options: dict[str, str]) -> None:
        raise PermissionError(f"the file refers to {url}")

    options = {"protocol_whitelist": "none"}
    try:
        return av.open(
            io.BytesIO(data), container_options=options, metadata_errors="replace", io_open=refuse
        )
    except PermissionError as error:
        raise RefusedMedia(
            "refused a file that would open other files or the network (playlist or script)"
        ) from error
    except DAMAGE as error:
        raise UnknownFormat(f"not a media file of a known format: {error}") from error


def packets_of(container: InputContainer) -> Iterator[av.Packet]:
    """The packets of a file up to its end, or to where damage makes the rest unreadable."""
    try:
        # An empty packet is a request to flush the codec.
        yield from (packet for packet in container.demux() if packet.size)
    except (*DAMAGE, IndexError):  # IndexError: PyAV met a stream that the header did not list
        return
