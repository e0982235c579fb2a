"""Exact frames and correct pictures, from files of phones, cameras, platforms and old programs."""

import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from ampere.media import pyav_decoder
from ampere.media.container import open_container
from ampere.media.decoder import Clip, FrameRequest, MediaError, Sampling, TooLarge, UnknownFormat
from ampere.media.hdr import hlg_scene, pq_nits, to_sdr
from ampere.media.pyav_decoder import PyavDecoder, ToRgb
from ampere.media.sampling import uniform_indices
from tests.helpers.videos import (
    X265,
    encode,
    numbered_frames,
    numbers_of,
    packets_of,
    reference,
    remux,
)

COUNT = 30
B_FRAMES = {"bf": "3", "g": "12"}


def decode(data: bytes, num_frames: int, **options: Any) -> Clip:
    return PyavDecoder().decode(data, FrameRequest(num_frames=num_frames, **options))


def x264(more: str) -> dict[str, str]:
    return {"x264-params": f"b-adapt=0:scenecut=0:{more}"}


def x265(more: str) -> dict[str, str]:
    return {"x265-params": f"b-adapt=0:scenecut=0:{more}:{X265}"}


# Kind of file -> arguments of `encode`.
RELIABLE: dict[str, dict[str, Any]] = {
    "h264-b": {"codec": "libx264", "options": B_FRAMES},
    "h264-pyramid": {
        "codec": "libx264",
        "options": x264("bframes=7:b-pyramid=normal:ref=6:keyint=15"),
    },
    "h264-open": {
        "codec": "libx264",
        "options": x264("bframes=3:open-gop=1:keyint=10:min-keyint=10"),
    },
    "h264-interlaced": {
        "codec": "libx264",
        "options": x264("interlaced=1:bframes=3:keyint=12:open-gop=1"),
    },
    "h264-one-group": {"codec": "libx264", "options": {"bf": "3", "g": "300"}},
    "h264-no-b": {"codec": "libx264", "options": {"bf": "0", "g": "12"}},
    "h264-422": {"codec": "libx264", "options": B_FRAMES, "pix_fmt": "yuv422p"},
    "h264-10-bit": {"codec": "libx264", "options": B_FRAMES, "pix_fmt": "yuv420p10le"},
    "h264-fragments": {
        "codec": "libx264",
        "options": B_FRAMES,
        "muxer": {"movflags": "frag_keyframe+empty_moov"},
    },
    "h264-no-edits": {"codec": "libx264", "options": B_FRAMES, "muxer": {"use_editlist": "0"}},
    "h264-mkv": {"codec": "libx264", "options": B_FRAMES, "kind": "matroska"},
    "h264-ts": {
        "codec": "libx264",
        "options": x264("bframes=3:open-gop=1:keyint=10"),
        "kind": "mpegts",
    },
    "h264-flv": {"codec": "libx264", "options": B_FRAMES, "kind": "flv"},
    "hevc": {"codec": "libx265", "options": x265("keyint=12:bframes=3:open-gop=0")},
    "hevc-open": {
        "codec": "libx265",
        "options": x265("keyint=12:min-keyint=12:bframes=3:open-gop=1"),
    },
    "hevc-pyramid": {"codec": "libx265", "options": x265("keyint=16:bframes=8:b-pyramid=1:ref=5")},
    "hevc-layers": {"codec": "libx265", "options": x265("keyint=16:bframes=3:temporal-layers=3")},
    "hevc-10-bit": {
        "codec": "libx265",
        "options": x265("keyint=12:bframes=3"),
        "pix_fmt": "yuv420p10le",
    },
    "hevc-ts": {"codec": "libx265", "options": x265("keyint=12:bframes=3"), "kind": "mpegts"},
    "mpeg4-avi": {"codec": "mpeg4", "options": B_FRAMES | {"b:v": "2M"}, "kind": "avi"},
    "mpeg4-mp4": {"codec": "mpeg4", "options": B_FRAMES | {"b:v": "2M"}},
    "mpeg2-ts": {
        "codec": "mpeg2video",
        "options": {"bf": "2", "g": "12", "b:v": "4M"},
        "kind": "mpegts",
    },
    "mpeg2-ps": {
        "codec": "mpeg2video",
        "options": {"bf": "2", "g": "12", "b:v": "4M"},
        "kind": "vob",
    },
    "vp8": {"codec": "libvpx", "options": {"g": "15", "b:v": "1M"}, "kind": "webm"},
    "vp9-alt-ref": {
        "codec": "libvpx-vp9",
        "options": {
            "auto-alt-ref": "1",
            "lag-in-frames": "20",
            "g": "15",
            "b:v": "1M",
            "cpu-used": "8",
        },
        "kind": "webm",
    },
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "kind": "mov"},
    "h263-3gp": {"codec": "h263", "kind": "3gp"},
    "flv1": {"codec": "flv1", "kind": "flv"},
    "wmv": {"codec": "wmv2", "kind": "asf"},
    "prores": {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "kind": "mov"},
    "gif": {"codec": "gif", "pix_fmt": "rgb8", "kind": "gif"},
}
# Files whose packets' times or marks are missing or wrong, so that all frames are decoded.
UNRELIABLE: dict[str, dict[str, Any]] = {
    "h264-refresh": {"codec": "libx264", "options": x264("intra-refresh=1:keyint=10:bframes=0")},
    "h264-raw": {"codec": "libx264", "options": B_FRAMES, "kind": "h264"},
    "h264-avi": {"codec": "libx264", "options": B_FRAMES, "kind": "avi"},
    "h264-mxf": {"codec": "libx264", "options": {"bf": "2", "g": "12"}, "kind": "mxf"},
    "h263-avi": {"codec": "h263", "kind": "avi"},
    "apng": {"codec": "apng", "pix_fmt": "rgb24", "kind": "apng"},
}


def time_problem(data: bytes) -> str | None:
    with open_container(data) as container:
        return pyav_decoder.read_tracks(container)[0].time_problem


def takes_few(data: bytes) -> bool:
    """Whether the frames are decoded without decoding all."""
    request = FrameRequest(num_frames=3)
    with open_container(data) as container:
        track = pyav_decoder.read_tracks(container)[0]
        pyav_decoder._configure(track, max_pixels=10**6)
        return bool(pyav_decoder.take_few(track, request, ToRgb(None, Fraction(1))))


def assert_exact(data: bytes, shown: list[int], *, same_times: bool = True) -> None:
    """For any number of frames, they are bit for bit those of plain decoding."""
    pictures, times = reference(data)
    assert numbers_of(pictures) == shown
    for count in range(1, len(shown) + 1):
        clip, wanted = decode(data, count), uniform_indices(len(shown), count)
        np.testing.assert_array_equal(clip.frames, pictures[wanted], err_msg=f"{count} frames")
        if same_times:
            np.testing.assert_allclose(clip.timestamps_s, [times[i] for i in wanted], atol=1e-9)


@pytest.mark.parametrize("name", RELIABLE)
def test_every_frame_is_exact(name: str) -> None:
    data = encode(frames=numbered_frames(COUNT), **RELIABLE[name])
    assert_exact(data, list(range(COUNT)))
    assert time_problem(data) is None and takes_few(data)


@pytest.mark.parametrize(("name", "reason"), [
    ("apng", "apng packets are marked as key frames wrongly"),
    ("h264-raw", "packets without a time"),
    ("h264-avi", "decoding times instead of presentation times"),
    ("h264-mxf", "decoding times instead of presentation times"),
    ("h263-avi", None),  # the marks are wrong, which only decoding shows
])  # fmt: skip
def test_time_problem_states_the_reason(name: str, reason: str | None) -> None:
    assert time_problem(encode(frames=numbered_frames(COUNT), **UNRELIABLE[name])) == reason


@pytest.mark.parametrize("name", UNRELIABLE)
def test_every_frame_is_exact_if_packets_are_unreliable(name: str) -> None:
    data = encode(frames=numbered_frames(COUNT), **UNRELIABLE[name])
    assert_exact(data, list(range(COUNT)), same_times=False)
    assert not takes_few(data) or name == "h264-refresh"
    clip = decode(data, COUNT)
    np.testing.assert_allclose(clip.timestamps_s - clip.timestamps_s[0], np.arange(COUNT) / 25)


def test_few_frames_repeat_the_nearest() -> None:
    data = encode("libx264", numbered_frames(3))
    assert numbers_of(decode(data, 7).frames) == [0, 0, 1, 1, 1, 2, 2]
    one = decode(encode("libx264", numbered_frames(6)[5:]), 3)
    assert numbers_of(one.frames) == [5, 5, 5] and one.timestamps_s.tolist() == [0, 0, 0]
    assert one.timestamps_s.dtype == np.float64


def test_key_frames() -> None:
    options = x264("bframes=2:keyint=10:min-keyint=10")
    data = encode("libx264", numbered_frames(40), options=options)  # key frames at 0, 10, 20 and 30
    clip = decode(data, 4, sampling=Sampling.KEYFRAME)
    # Moments 5, 15, 25 and 35 are between two key frames; the earlier.
    assert numbers_of(clip.frames) == [0, 10, 20, 30]
    np.testing.assert_allclose(clip.timestamps_s, [0, 0.4, 0.8, 1.2])
    # Moments 6.7, 20 and 33.3.
    assert numbers_of(decode(data, 3, sampling=Sampling.KEYFRAME).frames) == [10, 20, 30]
    pictures, _ = reference(data)
    np.testing.assert_array_equal(clip.frames, pictures[[0, 10, 20, 30]])


def test_key_frames_of_open_groups() -> None:
    data = encode(
        "libx265", numbered_frames(36), options=x265("keyint=12:min-keyint=12:bframes=3:open-gop=1")
    )
    keys = numbers_of(decode(data, 3, sampling=Sampling.KEYFRAME).frames)
    assert keys == [0, 12, 24]


@pytest.mark.parametrize(
    ("codec", "kind"),
    [("libx264", "mp4"), ("libx264", "matroska"), ("mpeg4", "mp4"), ("libvpx", "webm")],
)
def test_variable_rate_is_sampled_by_time(codec: str, kind: str) -> None:
    """25 frames in the first second, then one a second: the frames at the middles of five spans."""
    times = [*range(25), 25, 50, 75, 100, 124, 125]
    clip = decode(encode(codec, numbered_frames(31), kind=kind, times=times), 5)
    # At 12.6, 37.8, 63, 88.2 and 113.4 of 126 ticks.
    assert numbers_of(clip.frames) == [12, 25, 26, 27, 28]
    np.testing.assert_allclose(clip.timestamps_s, [12 / 25, 1, 2, 3, 4], atol=1e-3)


def test_variable_rate_with_unreliable_packets() -> None:
    """Sampled by time also if all frames are decoded."""
    data = encode(
        "apng", numbered_frames(6), kind="apng", pix_fmt="rgb24", times=[0, 1, 2, 3, 4, 30]
    )
    assert numbers_of(decode(data, 2).frames) == [4, 4]  # 0 to 36 ticks: 9 and 27


def move(
    ticks: int, time_base: Fraction = Fraction(1, 25)
) -> Callable[[list[av.Packet]], list[av.Packet]]:
    def change(packets: list[av.Packet]) -> list[av.Packet]:
        for packet in packets:
            by = int(ticks * time_base / packet.time_base)
            packet.pts, packet.dts = packet.pts + by, packet.dts + by
        return packets

    return change


@pytest.mark.parametrize("kind", ["mp4", "mov", "matroska", "mpegts"])
@pytest.mark.parametrize("ticks", [-10, 1000])
def test_times_that_do_not_start_at_zero(kind: str, ticks: int) -> None:
    """In MP4 an edit list hides frames before zero; others shift all. Late starts are preserved."""
    data = remux(
        [encode("libx264", numbered_frames(COUNT), options=B_FRAMES)], kind, change=move(ticks)
    )
    hidden = 10 if ticks < 0 and kind in ("mp4", "mov") else 0
    assert any(packet.is_discard for packet in packets_of(data)) == bool(hidden)
    assert_exact(data, list(range(hidden, COUNT)))
    assert (decode(data, 1).timestamps_s[0] > 40) == (ticks > 0)


def test_edit_list_that_hides_the_only_key_frame() -> None:
    data = remux(
        [encode("libx264", numbered_frames(COUNT), options={"g": "300"})], "mp4", change=move(-10)
    )
    assert numbers_of(decode(data, 2, sampling=Sampling.KEYFRAME).frames) == [15, 25]


def test_recording_that_starts_midway() -> None:
    """Frames before the first key frame cannot be decoded and do not count."""
    whole = remux([encode("libx264", numbered_frames(COUNT), options=B_FRAMES)], "mpegts")
    cut = remux([whole], "mpegts", change=lambda packets: packets[5:])
    assert_exact(cut, list(range(12, COUNT)))
    assert takes_few(cut)
    # The cut need not be at the start of a TS packet.
    assert_exact(whole[188 * 20 + 77 :], list(range(12, COUNT)))


def test_open_groups_that_start_midway() -> None:
    data = encode(
        "libx265", numbered_frames(36), options=x265("keyint=12:min-keyint=12:bframes=3:open-gop=1")
    )
    second = next(i for i, packet in enumerate(packets_of(data)) if packet.is_keyframe and i)
    cut = remux([data], "mpegts", change=lambda packets: packets[second:])
    assert_exact(cut, list(range(12, 36)))
    assert takes_few(cut)


def test_hidden_vp8_frames_do_not_count() -> None:
    """Two-pass encoders store reference frames in packets of their own."""

    def hide(packets: list[av.Packet]) -> list[av.Packet]:
        hidden = av.Packet(bytes([bytes(packets[7])[0] & ~0x10]) + bytes(packets[7])[1:])
        hidden.pts, hidden.dts, hidden.time_base = (
            packets[7].pts,
            packets[7].dts,
            packets[7].time_base,
        )
        return [*packets[:7], hidden, *move(-1)(packets[8:])]

    data = remux([encode("libvpx", numbered_frames(COUNT), kind="webm")], "webm", change=hide)
    assert len(packets_of(data)) == COUNT
    assert_exact(data, [i for i in range(COUNT) if i != 7])


def test_times_that_repeat_or_decrease() -> None:
    """Two recordings in sequence in one transport stream; their frames are numbered."""
    part = encode("libx264", numbered_frames(20), kind="mpegts")
    assert time_problem(part + part) == "several frames at one time"
    clip = decode(part + part, 8)
    assert numbers_of(clip.frames) == [2, 7, 12, 17, 2, 7, 12, 17]
    np.testing.assert_allclose(clip.timestamps_s, np.array(uniform_indices(40, 8)) / 25)


def test_durations_of_zero() -> None:
    def drop_durations(packets: list[av.Packet]) -> list[av.Packet]:
        for packet in packets:
            packet.duration = 0
        return packets

    data = remux(
        [encode("libx264", numbered_frames(COUNT), options=B_FRAMES)],
        "matroska",
        change=drop_durations,
    )
    assert_exact(data, list(range(COUNT)))


def test_frames_that_change_size_midway_get_one_size() -> None:
    small = encode("libx264", numbered_frames(20), kind="mpegts")
    large = encode(
        "libx264", numbered_frames(40, 256, 192)[20:], kind="mpegts", times=range(20, 40)
    )
    for data, size, numbers in (
        (small + large, (96, 128), [2, 7, 12, 17, 22, 27, 32, 37]),
        (large + small, (192, 256), [22, 27, 32, 37, 2, 7, 12, 17]),
    ):
        clip = decode(data, 8)
        assert clip.frames.shape == (8, *size, 3)
        assert numbers_of(clip.frames) == numbers
        assert decode(data, 8, short_side=48).frames.shape == (8, 48, 64, 3)


@pytest.mark.parametrize(("width", "height"), [(51, 37), (2, 2), (2, 96), (128, 2), (1, 1), (3, 1)])
@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("libx264", "yuv444p"), ("mpeg4", "yuv420p"), ("libvpx", "yuv420p")]
)
def test_odd_sizes(width: int, height: int, codec: str, pix_fmt: str) -> None:
    frames = np.ascontiguousarray(numbered_frames(8)[:, :height, :width])
    data = encode(codec, frames, pix_fmt=pix_fmt, kind="matroska")
    clip = decode(data, 3)
    assert clip.frames.shape == (3, height, width, 3)
    assert np.abs(clip.frames.astype(int) - frames[uniform_indices(8, 3)]).mean() < 8
    short = min(16, width, height)
    assert min(decode(data, 3, short_side=16).frames.shape[1:3]) == short


CORNERS = {(220, 0, 0): "R", (0, 220, 0): "G", (0, 0, 220): "B", (0, 0, 0): "."}


def corners(picture: np.ndarray) -> str:
    """Colors of the corners: top left and right, bottom left and right."""
    spots = [picture[y, x].astype(int) for y in (6, -6) for x in (6, -6)]
    nearest = [min(CORNERS, key=lambda color: np.abs(spot - color).sum()) for spot in spots]
    return "".join(CORNERS[color] for color in nearest)


# Degrees counterclockwise, whether to mirror left to right first -> size and corners as shown.
@pytest.mark.parametrize(
    ("degrees", "mirrored", "size", "shown"),
    [
        (0, False, (40, 80), "RGB."),
        (90, False, (80, 40), "G.RB"),
        (180, False, (40, 80), ".BGR"),
        (270, False, (80, 40), "BR.G"),
        (-90, False, (80, 40), "BR.G"),
        (450, False, (80, 40), "G.RB"),
        (89, False, (80, 40), "G.RB"),  # rounded to a quarter turn
        (30, False, (40, 80), "RGB."),
        (-135, False, (40, 80), ".BGR"),
        (0, True, (40, 80), "GR.B"),
        (90, True, (80, 40), ".GBR"),
        (180, True, (40, 80), "B.RG"),
        (270, True, (80, 40), "RBG."),
    ],
)
def test_rotation(degrees: float, mirrored: bool, size: tuple[int, int], shown: str) -> None:
    picture = np.zeros((2, 40, 80, 3), np.uint8)
    picture[:, :20, :40, 0] = picture[:, :20, 40:, 1] = picture[:, 20:, :40, 2] = 220
    data = encode(
        "libx264",
        picture,
        set_up=lambda container, stream: stream.set_display_rotation(degrees, hflip=mirrored),
    )
    clip = decode(data, 1)
    assert clip.frames.shape[1:3] == size
    assert corners(clip.frames[0]) == shown
    small = decode(data, 1, short_side=20)
    assert (
        small.frames.shape[1:3] == (size[0] // 2, size[1] // 2)
        and corners(small.frames[0]) == shown
    )


def still(codec: str, level: int, count: int = 1) -> bytes:
    pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}[codec]
    return encode(codec, np.full((count, 64, 64, 3), level, np.uint8), pix_fmt=pix_fmt, kind="mov")


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
@pytest.mark.parametrize("first", [True, False])
def test_mp4_cover_art_is_not_the_video(codec: str, first: bool) -> None:
    def mark(streams: list[av.VideoStream]) -> None:
        streams[0 if first else 1].disposition = Disposition.attached_pic

    video, cover = encode("libx264", numbered_frames(COUNT), options=B_FRAMES), still(codec, 200)
    data = remux([cover, video] if first else [video, cover], "mp4", set_up=mark)
    assert numbers_of(decode(data, 3).frames) == uniform_indices(COUNT, 3)


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
def test_matroska_cover_art_is_not_the_video(codec: str) -> None:
    name, cover = {"png": "png", "mjpeg": "jpeg"}[codec], bytes(packets_of(still(codec, 200))[0])
    data = encode(
        "libx264",
        numbered_frames(COUNT),
        kind="matroska",
        set_up=lambda container, stream: container.add_attachment(
            f"cover.{name}", f"image/{name}", cover
        ),
    )
    with av.open(io.BytesIO(data)) as container:
        assert len(container.streams.video) == 2
    assert numbers_of(decode(data, 3).frames) == uniform_indices(COUNT, 3)


@pytest.mark.parametrize("default", [0, 1])
def test_default_stream_is_preferred(default: int) -> None:
    """The file's default stream, whichever is larger or longer; without a default, the first."""

    def mark(streams: list[av.VideoStream]) -> None:
        streams[default].disposition, streams[1 - default].disposition = (
            Disposition.default,
            Disposition(0),
        )

    large, small = (
        encode("libx264", numbered_frames(20, 256, 192)),
        encode("libx264", numbered_frames(40)[20:]),
    )
    for files in ([large, small], [small, large]):
        clip = decode(remux(files, "matroska", set_up=mark), 2)
        assert clip.frames.shape[1] == {large: 192, small: 96}[files[default]]
    unmarked = remux([large, small], "mpegts")
    assert decode(unmarked, 2).frames.shape[1] == 192


def test_still_image_stream_is_not_preferred() -> None:
    video = encode("libx264", numbered_frames(COUNT), options=B_FRAMES)
    for kind in ("mp4", "matroska"):
        assert numbers_of(
            decode(remux([still("mjpeg", 99), video], kind), 3).frames
        ) == uniform_indices(COUNT, 3)


def test_video_of_one_frame() -> None:
    assert abs(decode(still("mjpeg", 99), 2).frames.mean() - 99) < 3


def test_next_stream_is_used_if_the_main_one_fails() -> None:
    def corrupt(packets: list[av.Packet]) -> list[av.Packet]:
        if packets[0].stream.width != 128:
            return packets
        corrupted = []
        for packet in packets:
            other = av.Packet(b"\xff" * packet.size)
            other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
            corrupted.append(other)
        return corrupted

    main, second = (
        encode("libx264", numbered_frames(20)),
        encode("libx264", numbered_frames(20, 256, 192)),
    )
    clip = decode(remux([main, second], "matroska", change=corrupt), 2)
    assert clip.frames.shape[1] == 192 and numbers_of(clip.frames) == [5, 15]


def test_audio_with_cover_art_is_no_video() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        audio = container.add_stream("aac", rate=8000, layout="mono")
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = (
            32,
            32,
            "yuvj420p",
            Disposition.attached_pic,
        )
        block = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), np.float32), format="fltp", layout="mono"
        )
        block.sample_rate = 8000
        container.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    with pytest.raises(UnknownFormat, match="no video stream"):
        decode(file.getvalue(), 4)


def test_metadata_that_is_not_utf8() -> None:
    def name(container: av.container.OutputContainer, stream: av.VideoStream) -> None:
        container.metadata["title"] = "TITLE"
        stream.metadata["title"] = stream.metadata["handler_name"] = "TITLE"

    for kind in ("mp4", "matroska", "avi"):
        data = encode("mpeg4", numbered_frames(8), kind=kind, set_up=name)
        assert b"TITLE" in data
        assert numbers_of(decode(data.replace(b"TITLE", b"\xff\xfe\xc3(\x80"), 2).frames) == [2, 6]


RAMP = np.broadcast_to(np.linspace(0, 255, 128).round().astype(np.uint8)[:, None], (3, 64, 128, 3))


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("libx264", "yuv420p"),
        ("libx264", "yuvj420p"),  # full range
        ("libx264", "yuv422p"),
        ("libx264", "yuv444p"),
        ("libx264", "yuv420p10le"),
        ("libx264", "yuv422p10le"),
        ("mjpeg", "yuvj420p"),
        ("ffv1", "gray"),
        ("ffv1", "yuv444p16le"),
        ("libx264rgb", "rgb24"),
        ("prores_ks", "yuv422p10le"),
        ("ffv1", "bgra"),
    ],
)
def test_gray_ramp_is_the_same_from_any_pixel_format(codec: str, pix_fmt: str) -> None:
    options = {"q:v": "1"} if codec == "mjpeg" else {"crf": "1"} if "264" in codec else {}
    data = encode(codec, RAMP, kind="matroska", pix_fmt=pix_fmt, options=options)
    assert np.abs(decode(data, 1).frames[0].astype(int) - RAMP[0]).max() <= 4


def test_color_range_is_read_from_the_stream() -> None:
    """The same samples, tagged once as 16 to 235 and once as 0 to 255."""
    for color_range, black in ((1, 0), (2, 16)):

        def tag(container: object, stream: av.VideoStream, color_range: int = color_range) -> None:
            stream.codec_context.color_range = color_range

        data = encode(
            "libx264", np.zeros((2, 64, 64, 3), np.uint8), options={"crf": "1"}, set_up=tag
        )
        assert abs(decode(data, 1).frames.mean() - black) <= 1


def test_color_channels_keep_their_order() -> None:
    frames = np.zeros((4, 64, 64, 3), np.uint8)
    frames[..., 0] = 220
    for codec, pix_fmt in (
        ("libx264", "yuv420p"),
        ("libx264", "yuv444p"),
        ("libx265", "yuv420p10le"),
    ):
        options = {"x265-params": X265} if codec == "libx265" else {}
        data = encode(codec, frames, pix_fmt=pix_fmt, options=options)
        red, green, blue = decode(data, 2).frames.mean(axis=(0, 1, 2))
        assert red > 210 and green < 10 and blue < 10


def test_hdr_curves_match_the_standards() -> None:
    np.testing.assert_allclose(
        pq_nits(np.array([0, 0.5081, 0.7518, 1])), [0, 100, 1000, 10_000], rtol=2e-3, atol=1e-6
    )
    np.testing.assert_allclose(
        hlg_scene(np.array([0, 0.5, 0.75, 1])), [0, 1 / 12, 0.2650, 1], atol=1e-4
    )
    white = np.full((1, 1, 3), round(0.5807 * 65535), np.uint16)  # PQ of 203 nits
    assert to_sdr(white, is_pq=True).min() >= 254
    hlg_white = np.full((1, 1, 3), round(0.75 * 65535), np.uint16)  # BT.2408: white is at 75 %
    assert to_sdr(hlg_white, is_pq=False).min() >= 254
    for is_pq in (True, False):
        black = to_sdr(np.zeros((1, 1, 3), np.uint16), is_pq=is_pq)
        assert not black.any()


def hdr_frame(picture: np.ndarray, transfer: str) -> av.VideoFrame:
    """An SDR picture as an HDR frame, white at 203 nits: yuv420p10le of BT.2020."""
    to_2020 = np.array(
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    )
    luminance = np.array([0.2627, 0.6780, 0.0593])
    nits = 203 * (picture / 255) ** 2.4 @ to_2020.T
    codes = np.linspace(0, 1, 2**16)
    if transfer == "pq":
        signal = np.interp(nits, pq_nits(codes), codes)
    else:
        light = nits / 1000
        scene = light * np.maximum(light @ luminance, 1e-9)[..., None] ** (1 / 1.2 - 1)
        signal = np.interp(scene, hlg_scene(codes), codes)
    luma = signal @ luminance
    chroma = [(signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746]
    height, width = luma.shape
    halved = [part.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for part in chroma]
    frame = av.VideoFrame(width, height, "yuv420p10le")
    for plane, part in zip(
        frame.planes, [64 + 876 * luma, *(512 + 896 * half for half in halved)], strict=True
    ):
        rows = np.zeros((part.shape[0], plane.line_size // 2), np.uint16)
        rows[:, : part.shape[1]] = part.round()
        plane.update(rows.tobytes())
    return frame


@pytest.mark.parametrize(("transfer", "code"), [("pq", 16), ("hlg", 18)])
def test_hdr_converts_back_to_the_sdr_picture(transfer: str, code: int) -> None:
    picture = np.empty((96, 128, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.linspace(20, 235, 128), np.linspace(235, 20, 96)[:, None]
    picture[..., 2] = 120
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx265", rate=25, options={"crf": "4", "x265-params": X265})
        video.pix_fmt, video.width, video.height = "yuv420p10le", 128, 96
        context = video.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = (
            9,
            code,
            9,
            1,
        )
        for i in range(3):
            frame = hdr_frame(picture, transfer)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    shown = decode(file.getvalue(), 2).frames
    assert shown.dtype == np.uint8
    assert np.abs(shown[0].astype(int) - picture).mean() < 4
    assert abs(shown.mean() - picture.mean()) < 3 and abs(shown.std() - picture.std()) < 3


def test_pixel_limit() -> None:
    data = encode("libx264", numbered_frames(4))
    assert len(decode(data, 2, max_pixels=128 * 96).frames) == 2
    with pytest.raises(TooLarge, match="128 x 96 pixels; the limit is 0.012287 megapixels"):
        decode(data, 2, max_pixels=128 * 96 - 1)


def test_non_videos_raise_media_error() -> None:
    data = encode("libx264", numbered_frames(12))
    for damaged in (
        b"",
        b"this is no video" * 50,
        data[:200],
        data[: len(data) // 2],
        bytes(len(data)),
    ):
        with pytest.raises(MediaError):
            decode(damaged, 4)
