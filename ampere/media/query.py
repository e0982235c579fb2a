"""An image or video used as a query, decoded into frames as the decode stage would."""

from ampere.config.decode import DecodeSettings
from ampere.media.decoder import MediaError
from ampere.media.sample_frames import decode_sample
from ampere.records import Domain, MediaKind


def query_frames(
    data: bytes, settings: DecodeSettings, domain: Domain | None = None
) -> list[bytes]:
    """Decode an image or video file as the decode stage would: 1 or `num_frames` JPEGs.

    Args:
        data: the file.
        settings: sampling, the stored format, and the limits.
        domain: where the media come from, if known; a page has one frame, even from a video.

    Raises:
        MediaError: the file is neither an image nor a video that can be decoded.
    """
    try:
        return decode_sample(MediaKind.IMAGE, [data], settings).frames
    except MediaError as image_error:
        try:
            num_frames = 1 if domain is Domain.PAGE else settings.num_frames
            return decode_sample(MediaKind.VIDEO, [data], settings, num_frames=num_frames).frames
        except MediaError as video_error:
            raise MediaError(
                f"neither an image ({image_error}) nor a video ({video_error})"
            ) from video_error


def query_domain(frames: list[bytes]) -> Domain:
    """The default domain of a query: page for one frame (an image), short for several (a video)."""
    return Domain.PAGE if len(frames) == 1 else Domain.SHORT
