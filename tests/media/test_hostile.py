"""Malicious files: they reach for the network or other files, fill memory, hang or crash."""

import http.server
import io
import random
import socket
import struct
import threading
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ampere.config.decode import DecodeSettings
from ampere.media.audio import decode_audio
from ampere.media.decoder import (
    Clip,
    DecoderCrashed,
    FrameRequest,
    MediaError,
    RefusedMedia,
    Sampling,
    TooLarge,
    UnknownFormat,
)
from ampere.media.images import open_image
from ampere.media.isolated import IsolatedProcess
from ampere.media.query import query_frames
from ampere.media.video import decode_video
from tests.helpers.videos import encode, numbered_frames, numbers_of

TWO, FOUR = FrameRequest(num_frames=2), FrameRequest(num_frames=4)
PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
    "hls-master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{}\n",
    "hls-key": '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-KEY:METHOD=AES-128,URI="{0}"\n'
    "#EXTINF:2,\n{0}\n",
    "ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>{}</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>",
    "smil": '<smil><body><video src="{}"/></body></smil>',
    "asx": '<asx version="3.0"><entry><ref href="{}"/></entry></asx>',
    "asf-reference": "[Reference]\nRef1={}\n",
    "quicktime-text": "RTSPtext\n{}\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    '<image xlink:href="{}"/></svg>',
    "avisynth": 'FFmpegSource2("{}")',
    "lavfi": "movie={}",
    "name": "{}",
}


@pytest.fixture(scope="module")
def process() -> Iterator[IsolatedProcess]:
    with IsolatedProcess(time_limit_s=20, memory_limit_gb=1) as process:
        yield process


class Server(http.server.ThreadingHTTPServer):
    """Serves a valid video at every address, and records the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.video = encode("libx264", numbered_frames(4), kind="mpegts")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.requests.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.video)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as answer:
            assert answer.read() and server.requests == ["/"], "the server records requests"
        server.requests.clear()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_reach_neither_the_network_nor_files(
    name: str, server: Server, process: IsolatedProcess, tmp_path: Path
) -> None:
    local = tmp_path / "local.ts"
    local.write_bytes(server.video)
    addresses = [
        f"http://127.0.0.1:{server.server_port}/a.ts",
        f"file://{local}",
        str(local),
        f"concat:{local}",
    ]
    for address in addresses:
        playlist = PLAYLISTS[name].format(address).encode()
        with pytest.raises(MediaError):
            process.call(decode_video, playlist, TWO)
        with pytest.raises(MediaError):
            process.call(query_frames, playlist, DecodeSettings())
        with pytest.raises(MediaError):
            process.call(decode_audio, playlist, 60.0)
    assert not server.requests


def test_playlist_raises_refused_media() -> None:
    with pytest.raises(RefusedMedia, match="playlist"):
        decode_video(b"ffconcat version 1.0\nfile 'http://127.0.0.1/a.mp4'\n", TWO)


def test_session_description_opens_no_socket(process: IsolatedProcess) -> None:
    """The file would make decord listen on a socket and wait for ten seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    )
    with (
        IsolatedProcess(time_limit_s=5, memory_limit_gb=1) as quick,
        pytest.raises(MediaError, match="known format"),
    ):
        quick.call(decode_video, text.encode(), TWO)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def with_outside_media(movie: bytes, address: str) -> bytes:
    """A QuickTime file whose header says that its frames are at `address`."""
    at = movie.index(box(b"url ", b"\0\0\0\1"))
    reference = box(b"url ", b"\0\0\0\0" + address.encode() + b"\0")
    grown = bytearray(movie[:at] + reference + movie[at + 12 :])
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = grown.rindex(kind, 0, at) - 4
        size = struct.unpack_from(">I", grown, start)[0]
        struct.pack_into(">I", grown, start, size + len(reference) - 12)
    return bytes(grown)


def test_movie_with_outside_references_reads_itself_only(server: Server, tmp_path: Path) -> None:
    movie = encode("libx264", numbered_frames(8), kind="mov")
    other = tmp_path / "other.mov"
    other.write_bytes(encode("libx264", numbered_frames(16)[8:], kind="mov"))
    for address in (f"http://127.0.0.1:{server.server_port}/a.mov", str(other), f"file://{other}"):
        assert numbers_of(decode_video(with_outside_media(movie, address), TWO).frames) == [2, 6]
        pointer = box(
            b"rdrf",
            b"\0\0\0\0url " + struct.pack(">I", len(address) + 1) + address.encode() + b"\0",
        )
        head = box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"rmra", box(b"rmda", pointer)))
        with pytest.raises(MediaError):
            decode_video(head, TWO)
    assert not server.requests


def png(width: int, height: int, stated_height: int | None = None) -> bytes:
    """A black PNG, made row by row; its header may state another height."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    packer = zlib.compressobj(9)
    rows = b"".join(
        [packer.compress(bytes(1 + 3 * width)) for _ in range(height)] + [packer.flush()]
    )
    header = struct.pack(">IIBBBBB", width, stated_height or height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def movie_of(codec: str, pictures: list[bytes], pix_fmt: str) -> bytes:
    """A QuickTime file of these encoded pictures whose header states 64 x 64."""
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        for i, picture in enumerate(pictures):
            packet = av.Packet(picture)
            packet.pts = packet.dts = i
            packet.time_base, packet.is_keyframe, packet.stream = Fraction(1, 25), True, stream
            container.mux(packet)
    return file.getvalue()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def huge_jpeg(width: int, height: int) -> bytes:
    """A JPEG of 16 x 16 pixels whose header states more."""
    data = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def black(mode: str = "L") -> Image.Image:
    return Image.new(mode, (9000, 5000))


# Small files whose pictures have, or state, too many pixels. Each takes time to make.
BOMBS: dict[str, Callable[[], bytes]] = {
    "png": lambda: png(9000, 5000),
    "png-header": lambda: png(64, 64, stated_height=2**31 - 1),
    "jpeg": lambda: saved(black(), "JPEG"),
    "jpeg-header": lambda: huge_jpeg(65500, 65500),
    "webp": lambda: saved(black("RGB"), "WEBP", method=0),
    "gif": lambda: saved(black("P"), "GIF"),
    "tiff": lambda: saved(black(), "TIFF", compression="tiff_lzw"),
    "png-movie": lambda: movie_of("png", [png(9000, 5000)], "rgb24"),
    "jpeg-movie": lambda: movie_of("mjpeg", [huge_jpeg(65500, 65500)] * 2, "yuvj420p"),
    "only-large": lambda: movie_of("png", [png(9000, 5000), png(64, 64)], "rgb24"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name: str) -> None:
    data = BOMBS[name]()
    assert len(data) < 1_000_000
    with IsolatedProcess(time_limit_s=20, memory_limit_gb=0.5) as process:
        with pytest.raises(MediaError) as caught:
            process.call(query_frames, data, DecodeSettings())
        assert not isinstance(caught.value, DecoderCrashed)


def test_video_that_grows_midway_gives_its_small_frames(process: IsolatedProcess) -> None:
    data = movie_of("png", [png(64, 64)] * 2 + [png(9000, 5000)] * 2, "rgb24")
    clip = process.call(decode_video, data, FOUR)
    assert clip.frames.shape == (4, 64, 64, 3) and clip.timestamps_s[-1] < 0.08


def test_headers_with_absurd_durations(process: IsolatedProcess) -> None:
    good = encode("libx264", numbered_frames(8))
    for name, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20), (b"elst", 12)):
        data = bytearray(good)
        struct.pack_into(">I", data, data.index(name) + offset, 2**32 - 1)
        assert len(process.call(decode_video, bytes(data), FOUR).frames) == 4
    for name, offset in (
        (b"stts", 8),
        (b"stts", 12),
        (b"stts", 16),
        (b"stsz", 8),
        (b"stsz", 12),
        (b"stsc", 8),
    ):
        data = bytearray(good)
        struct.pack_into(">I", data, data.index(name) + offset, 2**31 - 1)
        outcome(process, bytes(data))
    last = encode("libx264", numbered_frames(4), kind="matroska", times=[0, 1, 2, 10**7])
    assert len(process.call(decode_video, last, FOUR).frames) == 4


def outcome(
    process: IsolatedProcess, data: bytes, sampling: Sampling = Sampling.UNIFORM
) -> Clip | MediaError:
    """Complete frames or a MediaError; anything else fails the test."""
    try:
        request = FrameRequest(num_frames=4, sampling=sampling, short_side=32)
        clip = process.call(decode_video, data, request)
    except MediaError as error:
        return error
    assert len(clip.frames) == len(clip.timestamps_s) == 4
    assert min(clip.frames.shape[1:3]) <= 32 and clip.frames.dtype == np.uint8
    assert (np.diff(clip.timestamps_s) >= 0).all()
    return clip


def corrupt(data: bytes, rng: random.Random) -> bytes:
    """Change, delete or insert a few bytes, half the time in the header."""
    corrupted = bytearray(data)
    for _ in range(rng.choice((1, 3, 10))):
        at = rng.randrange(len(corrupted) if rng.random() < 0.5 else min(1500, len(corrupted)))
        match rng.randrange(4):
            case 0:
                corrupted[at] ^= 1 << rng.randrange(8)
            case 1:
                corrupted[at : at + 4] = rng.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4)))
            case 2:
                del corrupted[at : at + rng.randrange(1, 40)]
            case 3:
                corrupted[at:at] = rng.randbytes(rng.randrange(1, 20))
    return bytes(corrupted)


@pytest.mark.parametrize(
    ("codec", "kind"),
    [
        ("libx264", "mp4"),
        ("libx265", "mp4"),
        ("libx264", "matroska"),
        ("libx264", "mpegts"),
        ("mpeg4", "avi"),
    ]
    + [
        ("flv1", "flv"),
        ("libvpx", "webm"),
        ("libvpx-vp9", "webm"),
        ("mpeg2video", "vob"),
        ("h263", "3gp"),
    ],
)
def test_corrupted_files_give_frames_or_a_media_error(
    codec: str, kind: str, process: IsolatedProcess
) -> None:
    options = {"x265-params": "log-level=none:pools=1"} if codec == "libx265" else {}
    good, rng = (
        encode(codec, numbered_frames(16), kind=kind, options=options),
        random.Random(kind + codec),
    )
    outcomes = [outcome(process, corrupt(good, rng), rng.choice(list(Sampling))) for _ in range(60)]
    assert any(isinstance(one, Clip) for one in outcomes)
    assert any(isinstance(one, MediaError) for one in outcomes)


def test_random_bytes_and_other_formats_raise_media_error() -> None:
    rng = random.Random(5)
    for size in (1, 10, 1000, 100_000):
        with pytest.raises(MediaError):
            decode_video(rng.randbytes(size), TWO)
    for text in (b"", b"\0" * 5000, b"<html>not found</html>", b"%PDF-1.7\n", b"PK\3\4" * 300):
        with pytest.raises(MediaError):
            decode_video(text, TWO)


def test_pixel_limit_holds_for_the_whole_video() -> None:
    with pytest.raises(TooLarge):
        decode_video(
            encode("libx264", numbered_frames(4)), FrameRequest(num_frames=2, max_pixels=1000)
        )
    small, large = (
        encode("libx264", numbered_frames(8, width, 96), kind="mpegts") for width in (128, 256)
    )
    clip = decode_video(small + large, FrameRequest(num_frames=4, max_pixels=128 * 96))
    assert clip.frames.shape == (4, 96, 128, 3)


def test_postscript_is_no_picture() -> None:
    """Pillow would give it to Ghostscript, which runs it."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(UnknownFormat):
        open_image(eps)
