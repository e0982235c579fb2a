"""The type of a media file by its content, not by its name or by what a client says."""

MEDIA_TYPES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"\x1aE\xdf\xa3": "video/webm",  # and Matroska, which browsers play by this type
    b"FLV": "video/x-flv",
    b"\x00\x00\x01\xba": "video/mpeg",
    b"\x00\x00\x01\xb3": "video/mpeg",
    b"G@": "video/mp2t",
}
BRANDS = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
}
UNKNOWN = "application/octet-stream"
HEAD_BYTES = 64  # of a file, that its type is read from


def content_type(head: bytes) -> str:
    r"""The MIME type of a picture or video; `UNKNOWN` for anything else.

    Args:
        head: at least the first `HEAD_BYTES` of the file.

    >>> content_type(b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00")
    'video/mp4'
    >>> content_type(b"<html><script>")
    'application/octet-stream'
    """
    if head[4:8] == b"ftyp":
        return BRANDS.get(head[8:12], "video/quicktime" if head[8:12] == b"qt  " else "video/mp4")
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}.get(head[8:12], UNKNOWN)
    return next((kind for magic, kind in MEDIA_TYPES.items() if head.startswith(magic)), UNKNOWN)


SUFFIXES = {"image/jpeg": ".jpg", "video/quicktime": ".mov", "video/x-msvideo": ".avi"}


def suffix(kind: str) -> str:
    """A file name's suffix for a MIME type, with its dot."""
    return SUFFIXES.get(kind, "." + kind.rpartition("/")[2].removeprefix("x-"))
