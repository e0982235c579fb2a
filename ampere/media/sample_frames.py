"""The stored frames of one sample, whatever its media are: the pure work of the decode stage and of serving."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import fsspec
from PIL import Image

from ampere.media.decoder import Decoder, MediaError, uniform_indices
from ampere.media.images import encode_jpeg, read_image, scale_down
from ampere.records import MediaKind


@dataclass(frozen=True, kw_only=True)
class StoredFrames:
    """JPEG frames with what the `frames` table keeps about them; see records.FRAMES."""

    frames: list[bytes]
    timestamps_s: list[float]
    width: int
    height: int
    decoder: str
    source_hash: str


def read_bytes(uri: str) -> bytes:
    """The bytes at a local path or URI.

    Raises:
        MediaError: the file is missing, not readable, or empty.
    """
    try:
        with fsspec.open(uri, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise MediaError(f"media file not found: {uri}") from error
    except OSError as error:
        raise MediaError(f"media file cannot be read: {uri}: {error}") from error
    if not data:
        raise MediaError(f"media file is empty: {uri}")
    return data


def decode_sample(
    kind: MediaKind,
    media: Sequence[bytes],
    *,
    decoder: Decoder,
    num_frames: int,
    short_side: int,
    jpeg_quality: int,
    timestamps_s: Sequence[float] = (),
) -> StoredFrames:
    """Turn the media files of one sample into its stored frames.

    Args:
        kind: what the files are.
        media: their bytes; one file for an image or a video, any number in time order for frames.
        decoder: for videos.
        num_frames: frames of a clip; an image stays one frame.
        short_side, jpeg_quality: of what is stored.
        timestamps_s: times of the files for `MediaKind.FRAMES`; empty where unknown.

    Raises:
        MediaError: a file gives no frame.
    """
    if not media:
        raise MediaError("the sample has no media file")
    match kind:
        case MediaKind.IMAGE:
            images, times, name = [read_image(media[0])], [0.0], "pillow"
        case MediaKind.FRAMES:
            chosen = uniform_indices(len(media), num_frames)
            opened = {index: read_image(media[index]) for index in set(chosen)}
            images, name = [opened[index] for index in chosen], "pillow"
            times = [timestamps_s[index] for index in chosen] if timestamps_s else []
        case MediaKind.VIDEO:
            clip = decoder.decode(media[0], num_frames)
            images, name = [Image.fromarray(frame) for frame in clip.frames], decoder.name
            times = clip.timestamps_s.tolist()
    images = [scale_down(image, short_side) for image in images]
    digest = hashlib.blake2b(digest_size=16)
    for data in media:
        digest.update(data)
    return StoredFrames(
        frames=[encode_jpeg(image, jpeg_quality) for image in images],
        timestamps_s=times,
        width=images[0].width,
        height=images[0].height,
        decoder=name,
        source_hash=digest.hexdigest(),
    )
