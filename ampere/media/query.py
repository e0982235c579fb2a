"""An image, video or list of images used as a query, decoded as the decode stage would."""

from collections.abc import Sequence

from ampere.config.decode import DecodeSettings
from ampere.media.sample_frames import StoredFrames, decode_sample
from ampere.records import Domain, MediaKind


def query_frames(
    data: bytes | Sequence[bytes], settings: DecodeSettings, domain: Domain | None = None
) -> list[bytes]:
    """The frames of `query_sample`: 1 or `num_frames` JPEGs."""
    return query_sample(data, settings, domain).frames


def query_sample(
    data: bytes | Sequence[bytes], settings: DecodeSettings, domain: Domain | None = None
) -> StoredFrames:
    """Decode an image or video file as the decode stage would.

    Args:
        data: the file; or images in the order of time.
        settings: sampling, the stored format, and the limits.
        domain: where the media come from, if known; a page has one frame, even from a video.

    Raises:
        MediaError: the file is neither an image nor a video that can be decoded.
    """
    if isinstance(data, bytes):
        return decode_sample(MediaKind.FILE, [data], settings, domain=domain)
    kind = MediaKind.FILE if len(data) == 1 else MediaKind.FRAMES
    return decode_sample(kind, data, settings, domain=domain)


def query_domain(frames: list[bytes]) -> Domain:
    """The default domain of a query: page for one frame (an image), short for several (a video)."""
    return Domain.PAGE if len(frames) == 1 else Domain.SHORT
