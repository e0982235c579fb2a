"""decode_video: the order of decoders, on generated, damaged and real files."""

import contextlib
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest

from ampere.media import video
from ampere.media.decoder import (
    Clip,
    Decoder,
    FrameRequest,
    MediaError,
    MissingMedia,
    Sampling,
    TooLarge,
)
from ampere.media.decord_decoder import DecordDecoder
from ampere.media.pyav_decoder import PyavDecoder, pixel_aspect_of
from ampere.media.sampling import uniform_indices
from ampere.media.video import DECODERS, decode_video
from tests.helpers.videos import X265, encode, numbered_frames, numbers_of, upright

VIDEOS = Path(__file__).parents[2].parent / "shared" / "data" / "videos"
needs_videos = pytest.mark.skipif(not VIDEOS.exists(), reason="real videos are not present")


class Broken(PyavDecoder):
    """Raises the error it is given."""

    name = "broken"

    def __init__(self, error: MediaError) -> None:
        self.error = error

    def decode(self, data: bytes, request: FrameRequest) -> Clip:
        raise self.error


def decode(source: str | bytes, num_frames: int, **options: Any) -> Clip:
    return decode_video(source, FrameRequest(num_frames=num_frames, **options))


def use(monkeypatch: pytest.MonkeyPatch, decoders: Sequence[Decoder]) -> None:
    monkeypatch.setattr(video, "DECODERS", tuple(decoders))


def test_clip_names_the_first_decoder_that_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode("libx264", numbered_frames(20))
    assert decode(data, 4).decoder == "pyav"
    use(monkeypatch, [Broken(MediaError("no frame")), *DECODERS[::-1]])
    clip = decode(data, 4)
    assert clip.decoder == "decord"
    assert numbers_of(clip.frames) == uniform_indices(20, 4)
    use(monkeypatch, [Broken(MediaError("no frame")), Broken(MediaError("none here"))])
    with pytest.raises(MediaError, match="^broken: no frame; broken: none here$"):
        decode(data, 4)


def test_path_uri_and_bytes_give_the_same_clip(tmp_path: Path) -> None:
    data = encode("libx264", numbered_frames(24))
    (tmp_path / "a.mp4").write_bytes(data)
    fsspec.filesystem("memory").pipe_file("/clips/a.mp4", data)
    expected = decode(data, 4)
    for source in (str(tmp_path / "a.mp4"), f"file://{tmp_path}/a.mp4", "memory://clips/a.mp4"):
        clip = decode(source, 4)
        np.testing.assert_array_equal(clip.frames, expected.frames)
        np.testing.assert_array_equal(clip.timestamps_s, expected.timestamps_s)
    with pytest.raises(MissingMedia, match=r"not found: .*b\.mp4"):
        decode(str(tmp_path / "b.mp4"), 4)


def test_file_refused_for_its_size_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, [Broken(TooLarge("huge")), *DECODERS])
    with pytest.raises(TooLarge, match="huge"):
        decode(encode("libx264", numbered_frames(4)), 2)


@pytest.mark.parametrize("open_groups", ["0", "1"])
def test_hevc_with_open_and_closed_groups(open_groups: str) -> None:
    """Where decord refuses closed groups and returns neighbors for open ones."""
    options = {"x265-params": f"keyint=12:bframes=3:open-gop={open_groups}:{X265}"}
    data = encode("libx265", numbered_frames(30), options=options)
    for count in (5, 13, 30):
        assert numbers_of(decode(data, count).frames) == uniform_indices(30, count)


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
@pytest.mark.parametrize("count", [1, 4, 8, 24, 30])
def test_decoders_agree(decoder: Decoder, count: int) -> None:
    """On what both support: H.264 in MP4."""
    data = encode("libx264", numbered_frames(24), options={"bf": "3", "g": "8"})
    clip = decoder.decode(data, FrameRequest(num_frames=count))
    assert clip.frames.shape == (count, 96, 128, 3) and clip.frames.dtype == np.uint8
    assert clip.decoder == decoder.name
    assert numbers_of(clip.frames) == uniform_indices(24, count)
    np.testing.assert_allclose(
        clip.timestamps_s, np.array(uniform_indices(24, count)) / 25, atol=1e-6
    )
    small = decoder.decode(data, FrameRequest(num_frames=count, short_side=48))
    assert small.frames.shape == (count, 48, 64, 3)
    assert numbers_of(small.frames) == uniform_indices(24, count)
    keys = decoder.decode(data, FrameRequest(num_frames=3, sampling=Sampling.KEYFRAME))
    assert numbers_of(keys.frames) == [0, 8, 16]
    with pytest.raises(TooLarge):
        decoder.decode(data, FrameRequest(num_frames=count, max_pixels=100))
    with pytest.raises(MediaError):
        decoder.decode(b"no video", FrameRequest(num_frames=count))


KINDS = {
    "mp4": ("libx264", "mp4", {}),
    "fragments": ("libx264", "mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "matroska": ("libx264", "matroska", {}),
    "ts": ("libx264", "mpegts", {}),
    "avi": ("mpeg4", "avi", {}),
    "flv": ("flv1", "flv", {}),
    "webm": ("libvpx", "webm", {}),
    "ps": ("mpeg2video", "vob", {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_truncated_file(name: str) -> None:
    """The rest gives frames in order, or a MediaError if headers or the index are cut off."""
    codec, kind, muxer = KINDS[name]
    data = encode(
        codec, numbered_frames(40), kind=kind, muxer=muxer, options={"bf": "0", "g": "10"}
    )
    for tenth in range(10):
        try:
            clip = decode(data[: len(data) * tenth // 10], 8)
        except MediaError:
            # Headers take a part; an ordinary MP4 has its index at the end.
            assert tenth < 6 or name == "mp4"
        else:
            assert len(clip.frames) == 8 and (np.diff(clip.timestamps_s) >= 0).all()
            if tenth >= 6:
                numbers = numbers_of(clip.frames)[:-1]  # the last may be damaged
                assert numbers == sorted(set(numbers)) and numbers[0] <= 3


@pytest.mark.parametrize("name", KINDS)
def test_damaged_middle_loses_few_frames(name: str) -> None:
    codec, kind, muxer = KINDS[name]
    data = bytearray(
        encode(codec, numbered_frames(40), kind=kind, muxer=muxer, options={"bf": "0", "g": "10"})
    )
    start = len(data) * 60 // 100
    data[start : start + 400] = bytes(400)
    clip = decode(bytes(data), 8)
    assert len(clip.frames) == 8 and (np.diff(clip.timestamps_s) >= 0).all()
    numbers = numbers_of(clip.frames)
    assert numbers[0] <= 2
    assert numbers[-1] == 37 or name == "webm"  # its one cluster ends where the damage begins


def test_stream_without_index_and_with_junk_around_it() -> None:
    data = encode("libx264", numbered_frames(30), kind="mpegts", options={"g": "10"})
    for damaged in (b"\0" * 1000 + data, data + b"\xff" * 5000, data[:-500]):
        numbers = numbers_of(decode(damaged, 6).frames)
        assert len(numbers) == 6 and numbers[0] <= 3 and numbers[-1] >= 25


def real_videos() -> list[dict[str, str]]:
    if not VIDEOS.exists():
        return []
    with (VIDEOS / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@needs_videos
@pytest.mark.parametrize("row", real_videos(), ids=lambda row: row["file"])
def test_real_files_give_frames_or_a_media_error(row: dict[str, str]) -> None:
    data = (VIDEOS / row["file"]).read_bytes()
    if not row["decoded"]:
        with pytest.raises(MediaError, match="no video stream"):
            decode(data, 8)
        return
    for sampling in Sampling:
        clip = decode(data, 8, sampling=sampling, short_side=128)
        aspect = float(pixel_aspect_of(data)) * int(row["w"]) / int(row["h"])
        if abs(int(row["rot"])) in (90, 270):
            aspect = 1 / aspect
        assert clip.frames.shape[0] == 8
        assert clip.frames.shape[2] / clip.frames.shape[1] == pytest.approx(aspect, rel=0.02)
        assert (np.diff(clip.timestamps_s) >= 0).all()
        assert 0 <= clip.timestamps_s[0] <= clip.timestamps_s[-1] <= float(row["last_pts"]) + 0.01
        assert clip.decoder == "pyav"


@needs_videos
@pytest.mark.parametrize(
    "row",
    [row for row in real_videos() if row["decoded"] and not row["err"]],
    ids=lambda row: row["file"],
)
def test_real_files_match_plain_decoding(row: dict[str, str]) -> None:
    data = (VIDEOS / row["file"]).read_bytes()
    clip = decode(data, 8)
    wanted = set(clip.timestamps_s.tolist())
    times, pictures = [], {}
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(video=0):
            times.append(frame.time)
            if frame.time in wanted:
                pictures[frame.time] = upright(frame, container.streams.video[0])
    if not row["vfr"]:
        assert clip.timestamps_s.tolist() == [times[i] for i in uniform_indices(len(times), 8)]
    for time, shown in zip(clip.timestamps_s.tolist(), clip.frames, strict=True):
        assert np.abs(shown.astype(int) - pictures[time]).mean() <= 2


@needs_videos
def test_real_file_with_a_damaged_middle() -> None:
    """One of fifty frames cannot be decoded; its neighbors are intact."""
    data = (VIDEOS / "decord/tests/test_data/corrupted.mp4").read_bytes()
    clip = decode(data, 8)
    assert len(np.unique(clip.timestamps_s)) == 8
    np.testing.assert_allclose(clip.timestamps_s, np.array(uniform_indices(50, 8)) / 10, atol=0.11)


@needs_videos
def test_decord_alone_reads_most_real_files() -> None:
    read = 0
    for row in real_videos():
        if row["decoded"] and int(row["decoded"]) < 200:
            with contextlib.suppress(MediaError):
                data = (VIDEOS / row["file"]).read_bytes()
                clip = DecordDecoder().decode(data, FrameRequest(num_frames=4))
                read += len(clip.frames) == 4
    assert read > 20
