"""Decode the media of one sample into stored frames, for the decode stage and for serving."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ampere.config.decode import DecodeSettings
from ampere.media.decoder import FrameRequest, MissingMedia, Sampling
from ampere.media.images import encode_jpeg, read_image, scale_down
from ampere.media.sampling import uniform_indices
from ampere.media.source import load
from ampere.media.video import decode_video
from ampere.records import MediaKind


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
    num_frames: int | None = None,
    timestamps_s: Sequence[float] = (),
) -> StoredFrames:
    """Decode the media files of one sample into its stored frames.

    Args:
        kind: what the files are.
        media: paths, URIs or bytes; one file for an image or a video, any number in time order for
            frames.
        settings: sampling, the stored format, and the limits.
        num_frames: frames of a clip; None takes the number of the settings. An image is one frame.
        timestamps_s: times of the files for `MediaKind.FRAMES`; empty if unknown.

    Raises:
        MediaError: a file gives no frame, or exceeds a limit.
    """
    if not media:
        raise MissingMedia("the sample has no media file")
    num_frames = num_frames or settings.num_frames
    max_bytes, max_pixels = int(settings.max_file_mb * 1e6), int(settings.max_megapixels * 1e6)
    chosen = uniform_indices(len(media), num_frames) if kind is MediaKind.FRAMES else [0]
    files = {i: load(media[i], max_bytes) for i in dict.fromkeys(chosen)}
    if kind is MediaKind.VIDEO:
        request = FrameRequest(
            num_frames=num_frames,
            sampling=Sampling(settings.sampling),
            short_side=settings.short_side,
            max_pixels=max_pixels,
        )
        clip = decode_video(files[0], request)
        images = [Image.fromarray(frame) for frame in clip.frames]
        times, decoder = clip.timestamps_s.tolist(), clip.decoder
    else:
        read = {i: read_image(data, settings.short_side, max_pixels) for i, data in files.items()}
        images = [scale_down(read[i], settings.short_side) for i in chosen]
        times = (
            [timestamps_s[i] for i in chosen] if timestamps_s else [0.0] * (kind is MediaKind.IMAGE)
        )
        decoder = "pillow"
    digest = hashlib.blake2b(digest_size=16)
    for data in files.values():
        digest.update(data)
    return StoredFrames(
        frames=[encode_jpeg(image, settings.jpeg_quality) for image in images],
        timestamps_s=times,
        width=images[0].width,
        height=images[0].height,
        decoder=decoder,
        source_bytes=sum(len(data) for data in files.values()),
        source_hash=digest.hexdigest(),
    )
