"""Decode the media of one sample into stored frames, for the decode stage and for serving."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from ampere.config.decode import DecodeSettings
from ampere.media.animation import PillowDecoder, is_animated
from ampere.media.decoder import (
    Clip,
    FrameRequest,
    MediaError,
    MissingMedia,
    Sampling,
    UnknownFormat,
)
from ampere.media.images import encode_jpeg, open_image, read_image, scale_down
from ampere.media.sampling import uniform_indices
from ampere.media.source import READING_SHARE, load
from ampere.media.video import decode_video
from ampere.records import Domain, MediaKind


@dataclass(frozen=True, kw_only=True)
class StoredFrames:
    """JPEG frames and their metadata, as in the `frames` table; see `records.FRAMES`."""

    frames: list[bytes]
    timestamps_s: list[float]
    width: int
    height: int
    decoder: str
    source_bytes: int
    source_hash: str


def decode_sample(
    kind: MediaKind,
    media: Sequence[str | bytes],
    settings: DecodeSettings,
    *,
    domain: Domain | None = None,
    timestamps_s: Sequence[float] = (),
) -> StoredFrames:
    """Decode the media files of one sample into its stored frames.

    Args:
        kind: whether it is one file, or a list of pictures.
        media: paths, URIs or bytes, in time order.
        settings: sampling, the stored format, and the limits.
        domain: where the sample comes from; None: unknown. A page has one frame, of its first file.
        timestamps_s: times of the files for `MediaKind.FRAMES`; empty if unknown.

    Raises:
        MediaError: a file gives no frame, or exceeds a limit.
    """
    if not media:
        raise MissingMedia("the sample has no media file")
    deadline = time.monotonic() + READING_SHARE * settings.time_limit_s
    is_list = kind is MediaKind.FRAMES and domain is not Domain.PAGE
    chosen = uniform_indices(len(media), settings.num_frames) if is_list else [0]
    max_bytes = int(settings.max_file_mb * 1e6)
    files = {i: load(media[i], max_bytes, deadline) for i in dict.fromkeys(chosen)}
    if is_list:
        read = {i: _read_listed(media, i, data, settings) for i, data in files.items()}
        pictures = Pictures(
            [read[i] for i in chosen], [timestamps_s[i] for i in chosen if timestamps_s], "pillow"
        )
    else:
        pictures = decode_file(files[0], settings, domain)
    digest = hashlib.blake2b(digest_size=16)
    for data in files.values():
        digest.update(data)
    return StoredFrames(
        frames=[encode_jpeg(image, settings.jpeg_quality) for image in pictures.images],
        timestamps_s=pictures.timestamps_s,
        width=pictures.images[0].width,
        height=pictures.images[0].height,
        decoder=pictures.decoder,
        source_bytes=sum(len(data) for data in files.values()),
        source_hash=digest.hexdigest(),
    )


class Pictures(NamedTuple):
    """Decoded pictures, scaled down, with their times (empty if unknown) and decoder."""

    images: list[Image.Image]
    timestamps_s: list[float]
    decoder: str


def decode_file(data: bytes, settings: DecodeSettings, domain: Domain | None) -> Pictures:
    """Decode one file, of which the content alone decides what it is; a name does not matter.

    - An image of a format that Pillow knows, HEIC and AVIF included, is one picture.
    - An animated image (`ampere.media.animation`) is a clip, and of a page its first picture.
    - Everything else is given to the video decoders. A video of a page is one picture, its middle
      one. An image of a format that only FFmpeg reads, such as OpenEXR, is one picture.

    Raises:
        UnknownFormat: it is none of these; the message says what was tried.
        MediaError: it is one, and cannot be decoded or exceeds a limit.
    """
    request = FrameRequest(
        num_frames=1 if domain is Domain.PAGE else settings.num_frames,
        sampling=Sampling(settings.sampling),
        short_side=settings.short_side,
        max_pixels=int(settings.max_megapixels * 1e6),
    )
    try:
        image = open_image(data)
    except UnknownFormat as no_image:
        try:
            return _of_clip(decode_video(data, request))
        except UnknownFormat as no_video:
            raise UnknownFormat(
                f"neither an image ({no_image}) nor a video ({no_video})"
            ) from no_video
    if domain is not Domain.PAGE and is_animated(image):
        return _of_clip(PillowDecoder().decode(data, request))
    return Pictures([_read_scaled(data, settings)], [0.0], "pillow")


def _of_clip(clip: Clip) -> Pictures:
    images = [Image.fromarray(frame) for frame in clip.frames]
    return Pictures(images, clip.timestamps_s.tolist(), clip.decoder)


def _read_scaled(data: bytes, settings: DecodeSettings) -> Image.Image:
    image = read_image(data, settings.short_side, int(settings.max_megapixels * 1e6))
    return scale_down(image, settings.short_side)


def _read_listed(
    media: Sequence[str | bytes], i: int, data: bytes, settings: DecodeSettings
) -> Image.Image:
    """A file of a list, which must be an image; its errors say which file it is."""
    try:
        return _read_scaled(data, settings)
    except MediaError as error:
        source = media[i]
        name = "" if isinstance(source, bytes) else f", {source}"
        raise type(error)(f"file {i + 1} of {len(media)}{name}: {error}") from error
