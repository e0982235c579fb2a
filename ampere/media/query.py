"""A media file that someone searches by, as the stored frames of a sample."""

from ampere.media.decoder import MediaError
from ampere.media.decord_decoder import DecordDecoder
from ampere.media.sample_frames import decode_sample
from ampere.records import MediaKind


def query_frames(data: bytes, *, num_frames: int, short_side: int, jpeg_quality: int) -> list[bytes]:
    """Frames of an image or a video file given as bytes, decoded as the decode stage would: 1 or `num_frames` JPEGs.

    Raises:
        MediaError: it is neither an image nor a video that can be decoded.
    """

    def decode(kind: MediaKind) -> list[bytes]:
        return decode_sample(
            kind,
            [data],
            decoder=DecordDecoder(),
            num_frames=num_frames,
            short_side=short_side,
            jpeg_quality=jpeg_quality,
        ).frames

    try:
        return decode(MediaKind.IMAGE)
    except MediaError as no_image:
        try:
            return decode(MediaKind.VIDEO)
        except MediaError as no_video:
            raise MediaError(f"neither an image ({no_image}) nor a video ({no_video})") from no_video
