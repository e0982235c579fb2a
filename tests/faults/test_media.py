"""Media whose names mislead, unusual pictures and pixels, and servers that fail."""

import io
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import botocore.exceptions
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import ampere.reports.search
import serve.queries
from ampere.cli import main
from ampere.command_line import read_flags
from ampere.commands import Decode, Embed, StageCommand, Summarize
from ampere.config.decode import DecodeSettings
from ampere.media.decoder import (
    FrameRequest,
    MediaError,
    MissingMedia,
    TooLarge,
    UnavailableMedia,
    UnknownFormat,
    UnreadableMedia,
)
from ampere.media.decord_decoder import DecordDecoder
from ampere.media.images import decode_jpeg, read_image, to_8_bits
from ampere.media.pyav_decoder import PyavDecoder, Track
from ampere.media.query import query_domain, query_frames, query_sample
from ampere.media.sample_frames import StoredFrames, decode_sample
from ampere.media.source import ATTEMPTS, load
from ampere.media.source_errors import FIRST_WAIT_S, retry_after_s
from ampere.pipeline.decode import DecodeStage, decode_batch
from ampere.records import FAILURES, SAMPLES, Domain, MediaKind
from ampere.store.failures import record_failures
from ampere.store.workspace import Workspace
from tests.helpers.catalogs import write_manifest
from tests.helpers.videos import encode, numbered_frames, numbers_of

SETTINGS = DecodeSettings(num_frames=4, short_side=48, jpeg_quality=95)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gray(level: int) -> Image.Image:
    return Image.new("RGB", (64, 48), (level,) * 3)


def animated(kind: str, count: int = 8, **options: Any) -> bytes:
    """Gray pictures of levels 0, 30, 60 and so on."""
    first, *others = [gray(30 * i) for i in range(count)]
    if kind in ("WEBP", "AVIF"):
        options |= {"quality": 95}
    return saved(first, kind, save_all=True, append_images=others, duration=100, **options)


def decode(data: bytes, domain: Domain | None = None, **settings: Any) -> StoredFrames:
    changed = DecodeSettings(**vars(SETTINGS) | settings)
    return decode_sample(MediaKind.FILE, [data], changed, domain=domain)


def levels(stored: StoredFrames) -> list[int]:
    """Numbers of the pictures of `animated`."""
    return [round(np.asarray(decode_jpeg(jpeg)).mean() / 30) for jpeg in stored.frames]


VIDEO = encode("libx264", numbered_frames(12))
STILLS = {kind: saved(gray(90), kind) for kind in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF")}
ANIMATIONS = {kind: animated(kind) for kind in ("GIF", "PNG", "WEBP", "AVIF")}
FILES = (
    [(f"still-{kind}", data, 1) for kind, data in STILLS.items()]
    + [(f"moving-{kind}", data, 4) for kind, data in ANIMATIONS.items()]
    + [("video", VIDEO, 4)]
)


# What a file is


def test_content_decides_whatever_the_name_and_the_way_in(
    workspace: Workspace, tmp_path: Path
) -> None:
    """In a clip's place: catalog and query decode a file alike, under any name."""
    rows, expected = [], {}
    for label, data, count in FILES:
        for name in (label, f"{label}.jpg", f"{label}.mp4", f"{label}.gif"):
            (tmp_path / name).write_bytes(data)
            rows.append({"sample_id": name, "domain": "short", "media": name})
        frames = query_frames(data, SETTINGS, Domain.SHORT)
        assert frames == query_frames(data, SETTINGS) and len(frames) == count, label
        assert query_domain(frames) == (Domain.PAGE if count == 1 else Domain.SHORT)
        expected |= {row["sample_id"]: frames for row in rows[-4:]}
    write_manifest(tmp_path / "m.csv", rows)
    prepare = ["prepare", "--manifest", f"{tmp_path}/m.csv", "--workspace", workspace.uri]
    assert main(prepare) == 0
    decoded = {row["sample_id"]: row["frames"] for row in result_rows(workspace).to_pylist()}
    assert decoded == expected


def result_rows(workspace: Workspace) -> pa.Table:
    """Result rows of the decode stage for all samples."""
    samples = workspace.table(SAMPLES).dataset()
    batch = DecodeStage(workspace, SETTINGS).inputs()
    return decode_batch(batch, SETTINGS, samples.uri, samples.version)


def test_command_line_and_endpoint_use_the_same_function() -> None:
    assert ampere.reports.search.query_frames is query_frames
    assert serve.queries.query_sample is query_sample
    for _, data, _ in FILES:
        assert query_sample(data, SETTINGS).frames == query_frames(data, SETTINGS)


@pytest.mark.parametrize(("label", "data", "count"), FILES, ids=[label for label, *_ in FILES])
def test_page_has_one_picture(label: str, data: bytes, count: int) -> None:
    """The middle one of a video, the first one of an animated picture."""
    stored = decode(data, Domain.PAGE)
    assert len(stored.frames) == 1
    if label == "video":
        assert numbers_of(np.asarray(decode_jpeg(stored.frames[0]))[None]) == [6]
    elif count > 1:
        assert levels(stored) == [0]


def test_several_pages_or_layers_are_no_clip() -> None:
    for kind in ("TIFF", "HEIF", "MPO"):
        data = saved(gray(90), kind, save_all=True, append_images=[gray(0), gray(250)])
        assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
        assert levels(decode(data, Domain.SHORT)) == [3], kind


def test_picture_that_only_ffmpeg_reads_is_one_picture() -> None:
    pixels = np.full((48, 64, 3), 0.5, np.float32)
    data = b"PF\n64 48\n-1.0\n" + pixels.tobytes()
    stored = decode(data, Domain.SHORT)
    assert stored.decoder == "pyav" and len(stored.frames) == 1
    assert np.asarray(decode_jpeg(stored.frames[0])).mean() == pytest.approx(128, abs=2)


def test_video_that_pillow_knows_by_name_is_a_video() -> None:
    data = encode("mpeg1video", numbered_frames(12), kind="mpeg1video")
    assert Image.open(io.BytesIO(data)).format == "MPEG"
    assert len(decode(data, Domain.SHORT).frames) == 4


def test_refusal_says_what_was_tried_and_why() -> None:
    with pytest.raises(UnknownFormat) as error:
        decode(b"<html>log in</html>")
    assert str(error.value) == (
        "neither an image (not an image of a known format (19 bytes, starting with "
        "b'<html>log in')) nor a video (not a media file of a known format: "
        "[Errno 1094995529] Invalid data found when processing input: '<none>')"
    )


@pytest.mark.parametrize("kind", STILLS)
def test_cut_off_picture_is_no_video(kind: str) -> None:
    data = STILLS[kind]
    assert levels(decode(data)) == [3]
    for share in (0.5, 0.75) if kind == "PNG" else (0.5, 0.9, 0.97):  # PNG's last chunk is empty
        with pytest.raises(MediaError, match="cannot read the image"):
            decode(data[: int(len(data) * share)])


def test_video_in_a_list_of_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(STILLS["JPEG"])
    (tmp_path / "b.jpg").write_bytes(VIDEO)
    media = [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]
    with pytest.raises(UnknownFormat, match=r"^file 2 of 2, .*/b\.jpg: not an image"):
        decode_sample(MediaKind.FRAMES, media, SETTINGS, domain=Domain.LIVE)
    stored = decode_sample(MediaKind.FRAMES, media[::-1], SETTINGS, domain=Domain.PAGE)
    assert stored.decoder == "pyav" and len(stored.frames) == 1


# Animated pictures


@pytest.mark.parametrize("kind", ANIMATIONS)
def test_animated_picture_is_sampled_as_a_video(kind: str) -> None:
    stored = decode(ANIMATIONS[kind], Domain.SHORT)
    assert levels(stored) == [1, 3, 5, 7]
    assert stored.timestamps_s == pytest.approx([0.1, 0.3, 0.5, 0.7])
    assert stored.decoder == "pillow" and (stored.width, stored.height) == (64, 48)
    for sampling in ("uniform", "keyframe"):
        few = decode(animated(kind, 2), Domain.SHORT, sampling=sampling, short_side=24)
        assert levels(few) == [0, 0, 1, 1] and (few.width, few.height) == (32, 24)
    with pytest.raises(TooLarge, match="64 x 48 pixels"):
        decode(ANIMATIONS[kind], Domain.SHORT, max_megapixels=0.003)


def test_animated_picture_of_varying_rate_is_sampled_by_time() -> None:
    pictures = [gray(30 * i) for i in range(4)]
    options = {"save_all": True, "append_images": pictures[1:]}
    data = saved(pictures[0], "GIF", duration=[100, 900, 100, 100], **options)
    assert levels(decode(data, Domain.LIVE)) == [1, 1, 1, 2]
    data = saved(pictures[0], "GIF", duration=0, **options)  # shown as 100 ms each
    assert decode(data, Domain.LIVE).timestamps_s == pytest.approx([0, 0.1, 0.2, 0.3])


def test_transparent_pixels_of_an_animation_are_white() -> None:
    clear = Image.new("RGBA", (64, 48))
    for kind in ("GIF", "PNG", "WEBP"):
        data = saved(clear, kind, save_all=True, append_images=[gray(0).convert("RGBA")])
        shown = [np.asarray(decode_jpeg(jpeg)).mean() for jpeg in decode(data).frames]
        assert shown == pytest.approx([255, 255, 0, 0], abs=3), kind


def test_picture_for_programs_without_animation_is_not_part_of_it() -> None:
    moving = [gray(60), gray(120)]
    data = saved(gray(240), "PNG", save_all=True, append_images=moving, default_image=True)
    assert levels(decode(data)) == [2, 2, 4, 4]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_cut_off_animation_is_a_media_error(kind: str) -> None:
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(MediaError):
            decode(ANIMATIONS[kind][: int(len(ANIMATIONS[kind]) * share)])


# Pixels that are not square


def anamorphic(
    aspect: Fraction, kind: str = "mp4", degrees: float = 0, flip: bool = False
) -> bytes:
    def set_up(_: Any, stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = aspect
        if degrees or flip:
            stream.set_display_rotation(degrees, hflip=flip)

    return encode("libx264", numbered_frames(8, 80, 120), kind=kind, set_up=set_up)


@pytest.mark.parametrize("kind", ["mp4", "matroska", "mpegts", "avi"])
@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(2), (160, 120)),
        (Fraction(1, 2), (80, 240)),
        (Fraction(12, 11), (87, 120)),
        (Fraction(1), (80, 120)),
        (Fraction(0), (80, 120)),
    ],
)
def test_frames_have_square_pixels(kind: str, aspect: Fraction, size: tuple[int, int]) -> None:
    clip = PyavDecoder().decode(anamorphic(aspect, kind), FrameRequest(num_frames=3))
    assert clip.frames.shape == (3, size[1], size[0], 3)
    assert numbers_of(clip.frames) == [1, 4, 6]
    stored = decode(anamorphic(aspect, kind), short_side=40)
    assert min(stored.width, stored.height) == 40
    assert stored.width / stored.height == pytest.approx(size[0] / size[1], rel=0.03)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_pixels_are_made_square_before_the_rotation(degrees: float, flip: bool) -> None:
    clip = PyavDecoder().decode(
        anamorphic(Fraction(2), degrees=degrees, flip=flip), FrameRequest(num_frames=1)
    )
    assert clip.frames.shape[1:3] == ((160, 120) if degrees % 180 else (120, 160))


def test_pixel_limit_counts_square_pixels() -> None:
    with pytest.raises(TooLarge, match="160 x 120 pixels"):
        decode(anamorphic(Fraction(2)), max_megapixels=80 * 121 / 1e6)


@pytest.mark.parametrize("stated", [None, Fraction(1000), Fraction(1, 1000)])
def test_implausible_aspect_ratio_is_ignored(stated: Fraction | None) -> None:
    stream: Any = SimpleNamespace(sample_aspect_ratio=stated)
    assert Track(stream).pixel_aspect == 1


def test_decord_refuses_what_it_would_squeeze() -> None:
    with pytest.raises(MediaError, match="ignores the sample aspect ratio"):
        DecordDecoder().decode(anamorphic(Fraction(2)), FrameRequest(num_frames=1))
    assert DecordDecoder().decode(anamorphic(Fraction(1)), FrameRequest(num_frames=1)).frames.any()


def test_frames_with_exif_are_read() -> None:
    """As cameras store them in Motion JPEG; PyAV does not know FFmpeg's type for it."""
    exif = Image.Exif()
    exif[0x010F] = "camera"
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as container:
        video = container.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
        for i in range(4):
            packet = av.Packet(saved(gray(30 * i), "JPEG", exif=exif))
            packet.stream, packet.pts, packet.dts, packet.time_base = video, i, i, Fraction(1, 25)
            container.mux(packet)
    assert levels(decode(file.getvalue())) == [0, 1, 2, 3]


# Pixels of more than 8 bits


RAMP = np.linspace(0, 1, 64, dtype=np.float64).reshape(8, 8)


@pytest.mark.parametrize(
    ("white", "dtype"),
    [
        (1, np.float32),
        (255, np.float32),
        (65535, np.float32),
        (255, np.uint16),
        (4095, np.uint16),
        (65535, np.uint16),
        (255, np.int32),
        (65535, np.int32),
        (2**31 - 1, np.int32),
    ],
)
def test_deep_pictures_are_scaled_to_their_range(white: int, dtype: type) -> None:
    data = saved(Image.fromarray((RAMP * white).astype(dtype)), "TIFF")
    shown = np.asarray(read_image(data, 64))
    np.testing.assert_allclose(shown[..., 0], RAMP * 255, atol=1.01)
    assert (shown == shown[..., :1]).all()


def test_overshoot_of_floats_is_clipped() -> None:
    assert to_8_bits(np.array([[-0.03, 0.5, 1.04]], np.float32)).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    "values",
    [[0, np.nan], [0, np.inf], [-1, 1], [0, 5], [0, 1e6], [0, 1e30]],
)
def test_floats_of_unknown_range_are_refused(values: list[float]) -> None:
    data = saved(Image.fromarray(np.array([values] * 2, np.float32)), "TIFF")
    with pytest.raises(MediaError, match=r"values from .*; expected 0 to 1, 255, 4095, 65535 or"):
        read_image(data, 64)


@pytest.mark.parametrize("values", [[-5, 100], [0, 100_000]])
def test_integers_of_unknown_range_are_refused(values: list[int]) -> None:
    data = saved(Image.fromarray(np.array([values] * 2, np.int32)), "TIFF")
    with pytest.raises(MediaError, match=r"values from .*; expected 0 to 255, 4095, 65535 or"):
        read_image(data, 64)


def test_16_bit_colors_that_would_be_black_are_refused() -> None:
    for level in (4000, 40_000):
        pixels = np.full((8, 8, 3), level, np.uint16)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb48le")
        codec = av.CodecContext.create("png", "w")
        codec.width, codec.height, codec.pix_fmt = 8, 8, "rgb48be"
        codec.time_base = Fraction(1, 25)
        (packet, *_) = codec.encode(frame.reformat(format="rgb48be"))
        if level == 4000:
            with pytest.raises(MediaError, match="would be black"):
                read_image(bytes(packet), 64)
        else:
            assert np.asarray(read_image(bytes(packet), 64)).max() == level >> 8


def test_black_on_transparent_16_bits_is_no_dark_picture() -> None:
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 8, 8, "rgba64be", Fraction(1, 25)
    clear = av.VideoFrame.from_ndarray(np.zeros((8, 8, 4), np.uint16), format="rgba64be")
    (packet, *_) = codec.encode(clear)
    assert np.asarray(read_image(bytes(packet), 64)).min() == 255


def color_tiff(pixels: np.ndarray) -> bytes:
    """An uncompressed TIFF of pixels [H, W, 3], of a type that Pillow cannot write."""
    height, width, _ = pixels.shape
    bits, is_float = 8 * pixels.dtype.itemsize, pixels.dtype.kind == "f"
    start = 8 + 2 + 10 * 12 + 4  # of the arrays, behind ten entries
    entries = [  # tag, type (3: 16 bits, 4: 32 bits), count, value or offset
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, start),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, start + 12),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, pixels.nbytes),
        (339, 3, 3, start + 6),
    ]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    arrays = struct.pack("<6H", *[bits] * 3, *[3 if is_float else 1] * 3)
    return struct.pack("<2sHIH", b"II", 42, 8, 10) + packed + bytes(4) + arrays + pixels.tobytes()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint32])
def test_colors_that_pillow_cannot_read_are_refused(dtype: type) -> None:
    """FFmpeg would read whole numbers as floats: black."""
    white = 2**32 - 1 if dtype is np.uint32 else 1
    data = color_tiff((np.ones((8, 8, 3)) * white).astype(dtype))
    for domain in (None, Domain.PAGE, Domain.LIVE):
        with pytest.raises(MediaError, match="a TIFF file that is damaged or of an unusual kind"):
            decode(data, domain)
    assert np.asarray(read_image(color_tiff(np.full((8, 8, 3), 60_000, np.uint16)), 64)).max() > 230


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_no_mode_of_pillow_is_black(mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.full((48, 64), 60_000, np.uint16))
    elif mode in ("I", "F"):
        kind, white = (np.int32, 60_000) if mode == "I" else (np.float32, 0.92)
        picture = Image.fromarray(np.full((48, 64), white, kind))
    else:
        picture = gray(255 if mode == "1" else 235).convert(mode)
    assert picture.mode == mode
    shown = np.asarray(read_image(saved(picture, "TIFF"), 64))
    assert shown.mean() == pytest.approx(255 if mode == "1" else 235, abs=2)


# Servers that fail


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, the last one for ever.

    An answer is a status with headers, or a function of the request's handler.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Any] = []
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/a.jpg"

    def handle_error(self, *_: object) -> None:
        """Clients that give up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.command)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer(self)
            return
        status, headers = answer
        body = STILLS["JPEG"] if status == 200 else b"<html>no</html>"
        send(self, status, {"Content-Length": str(len(body))} | headers, body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def send(handler: Handler, status: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


GOOD: tuple[int, dict[str, str]] = (200, {})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


class Waits(list[float]):
    """Takes the place of `time.sleep` and keeps the seconds."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def test_good_file_is_one_get(server: Server) -> None:
    """Many servers answer HEAD, or ranges, wrongly."""
    server.answers = [GOOD]
    assert load(server.url, 10**6) == STILLS["JPEG"] and server.requests == ["GET"]
    with pytest.raises(TooLarge, match="exceeds the limit"):
        load(server.url, 100)


@pytest.mark.parametrize(
    ("status", "kind", "cause"),
    [
        (400, UnreadableMedia, "cannot read media file: {}: HTTP 400 Bad Request"),
        (401, UnreadableMedia, "cannot read media file: {}: HTTP 401 Unauthorized"),
        (403, UnreadableMedia, "cannot read media file: {}: HTTP 403 Forbidden"),
        (404, MissingMedia, "media file not found: {}: HTTP 404 Not Found"),
        (410, MissingMedia, "media file not found: {}: HTTP 410 Gone"),
    ],
)
def test_lasting_http_error_keeps_its_status(
    server: Server, status: int, kind: type[MediaError], cause: str
) -> None:
    server.answers, waits = [(status, {})], Waits()
    with pytest.raises(kind) as error:
        load(server.url, 10**6, sleep=waits)
    assert str(error.value) == cause.format(server.url)
    assert not waits and len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_passing_http_error_is_retried(server: Server, status: int) -> None:
    server.answers, waits = [(status, {}), (status, {}), GOOD], Waits()
    assert load(server.url, 10**6, sleep=waits) == STILLS["JPEG"]
    assert len(server.requests) == 3
    for attempt, wait in enumerate(waits):
        assert 0.5 <= wait / (FIRST_WAIT_S * 2**attempt) <= 1.5
    server.answers, waits = [(status, {})], Waits()
    with pytest.raises(UnavailableMedia, match=rf"{server.url}: HTTP {status}.* \(4 attempts\)$"):
        load(server.url, 10**6, sleep=waits)
    assert len(waits) == ATTEMPTS - 1 and len(server.requests) == 3 + ATTEMPTS


def cut_off(handler: Handler) -> None:
    send(handler, 200, {"Content-Length": "9999"}, b"half")
    handler.close_connection = True


def hang_up(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


@pytest.mark.parametrize(
    ("answer", "cause"), [(cut_off, "ClientPayloadError"), (hang_up, "ServerDisconnectedError")]
)
def test_lost_connection_is_retried(
    server: Server, answer: Callable[[Handler], None], cause: str
) -> None:
    server.answers, waits = [answer, GOOD], Waits()
    assert load(server.url, 10**6, sleep=waits) == STILLS["JPEG"]
    server.answers, waits = [answer], Waits()
    with pytest.raises(UnavailableMedia, match=cause):
        load(server.url, 10**6, sleep=waits)
    assert len(waits) == ATTEMPTS - 1


def test_refused_connection_is_retried() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, waits = free.getsockname()[1], Waits()
    with pytest.raises(UnavailableMedia, match="ClientConnectorError: Cannot connect"):
        load(f"http://127.0.0.1:{port}/a.jpg", 10**6, sleep=waits)
    assert len(waits) == ATTEMPTS - 1


def test_silent_server_is_unavailable(server: Server) -> None:
    """In good time before the decoder's own limit, which would tell another story."""
    given_up = threading.Event()
    server.answers = [lambda _: given_up.wait(10)]
    try:
        with pytest.raises(UnavailableMedia, match=r"TimeoutError"):
            load(server.url, 10**6, deadline=time.monotonic() + 0.3)
        server.answers = [(503, {"Retry-After": "1"})]
        settings = DecodeSettings(time_limit_s=1)
        with pytest.raises(UnavailableMedia, match="HTTP 503"):
            decode_sample(MediaKind.FILE, [server.url], settings)
    finally:
        given_up.set()


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ((302, {"Location": "/loop"}), "too many redirects"),
        ((200, {"Content-Encoding": "gzip"}), "ClientPayloadError"),
    ],
)
def test_other_answers_keep_their_cause(server: Server, answer: Any, cause: str) -> None:
    server.answers = [answer]
    with pytest.raises(MediaError, match=cause):
        load(server.url, 10**6, sleep=Waits())


def test_tls_error_and_unknown_host_are_not_retried(server: Server) -> None:
    server.answers, waits = [GOOD], Waits()
    for url, cause in (
        (server.url.replace("http:", "https:"), "SSL"),
        ("http://no-such-host.invalid/a.jpg", "ClientConnectorDNSError"),
        ("http:///a.jpg", "InvalidUrlClientError"),
    ):
        with pytest.raises((UnreadableMedia, UnavailableMedia), match=cause) as error:
            load(url, 10**6, sleep=waits)
        # Without a network the resolver says "try again".
        assert error.type is UnreadableMedia or "Temporary failure" in str(error.value)
        assert not waits or error.type is UnavailableMedia


def test_retry_after_is_obeyed_within_the_time_limit(server: Server) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    busy = [(429, {"Retry-After": "7"}), (503, {"Retry-After": date}), (503, {"Retry-After": "x"})]
    server.answers, waits = [*busy, GOOD], Waits()
    assert load(server.url, 10**6, sleep=waits) == STILLS["JPEG"]
    assert waits[0] == 7 and 15 < waits[1] <= 20 and 0.5 <= waits[2] / 4 <= 1.5
    server.answers, waits = [(429, {"Retry-After": "3600"}), GOOD], Waits()
    with pytest.raises(UnavailableMedia, match="HTTP 429 Too Many Requests$"):
        load(server.url, 10**6, sleep=waits)
    assert not waits


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "Wed, 99 Oct", "1e9"])
def test_invalid_retry_after_is_ignored(value: str) -> None:
    assert retry_after_s(value) is None


CLIENT_ERROR = botocore.exceptions.ClientError
STORE_ERRORS: list[tuple[Exception, Exception | None, type[MediaError], str]] = [
    # As fsspec raises it, its cause, what it means, and what the message has.
    (
        PermissionError("Forbidden"),
        CLIENT_ERROR({"ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject"),
        UnreadableMedia,
        "HTTP 403 Forbidden",
    ),
    (
        FileNotFoundError("no key"),
        CLIENT_ERROR({"ResponseMetadata": {"HTTPStatusCode": 404}}, "GetObject"),
        MissingMedia,
        "HTTP 404 Not Found",
    ),
    (
        OSError(16, "Please reduce your request rate"),
        CLIENT_ERROR({"ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject"),
        UnavailableMedia,
        "HTTP 503 Service Unavailable",
    ),
    (
        botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"),
        None,
        UnavailableMedia,
        "EndpointConnectionError",
    ),
    (
        botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"),
        None,
        UnavailableMedia,
        "ReadTimeoutError",
    ),
    (
        botocore.exceptions.SSLError(endpoint_url="http://x", error="certificate"),
        None,
        UnreadableMedia,
        "SSLError",
    ),
    (botocore.exceptions.NoCredentialsError(), None, UnreadableMedia, "NoCredentialsError"),
    (ConnectionResetError(104, "reset"), None, UnavailableMedia, "ConnectionResetError"),
    (OSError(5, "Input/output error"), None, UnavailableMedia, "Input/output error"),
    (PermissionError(13, "Permission denied"), None, UnreadableMedia, "Permission denied"),
]


@pytest.mark.parametrize(("error", "cause", "kind", "message"), STORE_ERRORS)
def test_errors_of_other_stores_are_told_apart_and_not_retried(
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    cause: Exception | None,
    kind: type[MediaError],
    message: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error from cause

    monkeypatch.setattr("ampere.media.source.open_file", fail)
    waits = Waits()
    with pytest.raises(kind, match=message) as raised:
        load("s3://bucket/a.jpg", 10**6, sleep=waits)
    assert type(raised.value) is kind and not waits


# Failed rows


def test_retries_can_be_limited_to_errors_that_may_pass(
    workspace: Workspace, tmp_path: Path, server: Server
) -> None:
    server.answers = [(403, {}), (503, {"Retry-After": "0"})]
    rows = [
        {"sample_id": name, "domain": "page", "media": media}
        for name, media in [
            ("denied", server.url),
            ("busy", server.url),
            ("missing", "none.jpg"),
        ]
    ]
    write_manifest(tmp_path / "m.csv", rows)
    prepare = ["prepare", "--manifest", f"{tmp_path}/m.csv", "--workspace", workspace.uri]
    assert main(prepare) == 0
    record_failures(workspace, "decode", result_rows(workspace))
    failures = {row["sample_id"]: row for row in workspace.table(FAILURES).read().to_pylist()}
    assert {name: row["error_type"] for name, row in failures.items()} == {
        "denied": "UnreadableMedia",
        "busy": "UnavailableMedia",
        "missing": "MissingMedia",
    }
    assert "HTTP 403 Forbidden" in failures["denied"]["message"]
    assert "HTTP 503 Service Unavailable (4 attempts)" in failures["busy"]["message"]
    plan = DecodeStage(workspace, SETTINGS).plan(workspace)

    def to_process(**flags: bool) -> list[str]:
        return sorted(plan.rows_to_process(**flags)["sample_id"].to_pylist())

    assert to_process(retry_failed=False) == []
    assert to_process(retry_failed=True, only_retryable=True) == ["busy"]
    assert to_process(retry_failed=True) == ["busy", "denied", "missing"]


@pytest.mark.parametrize("kind", [Decode, Summarize, Embed])
def test_every_stage_takes_both_flags(
    workspace: Workspace, kind: type[StageCommand], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--workspace", workspace.uri, "--retry-failed", "--only-retryable"]
    command = read_flags(kind, flags)
    assert isinstance(command, kind) and command.retry_failed and command.only_retryable
    with pytest.raises(SystemExit, match="2"):
        read_flags(kind, ["--workspace", workspace.uri, "--only-retryable"])
    assert "--only-retryable requires --retry-failed" in capsys.readouterr().err
