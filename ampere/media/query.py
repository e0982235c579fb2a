"""A media file that someone searches by, as the stored frames of a sample."""

from ampere.config.decode import DecodeSettings
from ampere.media.decoder import MediaError
from ampere.media.sample_frames import decode_sample
from ampere.records import Domain, MediaKind


def query_frames(
    data: bytes, settings: DecodeSettings, domain: Domain | None = None
) -> list[bytes]:
    """Frames of an image or a video file given as bytes, decoded as the decode stage would: 1 or `num_frames` JPEGs.

    Args:
        domain: what is shown, where it is known; a page has one picture, also if it is a video.

    Raises:
        MediaError: it is neither an image nor a video that can be decoded.
    """
    try:
        return decode_sample(MediaKind.IMAGE, [data], settings).frames
    except MediaError as no_image:
        try:
            num_frames = 1 if domain is Domain.PAGE else settings.num_frames
            return decode_sample(MediaKind.VIDEO, [data], settings, num_frames=num_frames).frames
        except MediaError as no_video:
            raise MediaError(
                f"neither an image ({no_image}) nor a video ({no_video})"
            ) from no_video


def query_domain(frames: list[bytes]) -> Domain:
    """What a query is taken for unless told: a picture for a page, a video for a short."""
    return Domain.PAGE if len(frames) == 1 else Domain.SHORT
