"""Audio at its right time and level, from files of phones, cameras, platforms and old programs."""

import csv
import io
import random
import struct
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.media.audio import (
    MAX_GAP_S,
    NoAudio,
    Timeline,
    decode_audio,
    read_audio,
)
from ampere.media.decoder import MediaError, MissingMedia, RefusedMedia, TooLarge, UnknownFormat
from ampere.media.isolated import IsolatedProcess
from tests.helpers.sounds import AMPLITUDE, amplitude, encode_audio, onset_s, tone
from tests.helpers.videos import encode, numbered_frames

VIDEOS = Path(__file__).parents[2].parent / "shared" / "data" / "videos"
HOUR = 3600.0

# Kind of file -> arguments of `encode_audio`, and by how much it may be late: the encoder's delay
# where the container cannot store it.
KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "aac-mp4": ({"codec": "aac", "kind": "mp4"}, 0.002),
    "aac-mp4-44100": ({"codec": "aac", "kind": "mp4", "rate": 44100}, 0.002),
    "aac-mkv": ({"codec": "aac", "kind": "matroska"}, 0.002),
    "aac-ts": ({"codec": "aac", "kind": "mpegts"}, 0.03),
    "aac-flv": ({"codec": "aac", "kind": "flv", "rate": 44100}, 0.03),
    "aac-adts": ({"codec": "aac", "kind": "adts"}, 0.03),
    "ac3-ts": ({"codec": "ac3", "kind": "mpegts"}, 0.03),
    "mp3": ({"codec": "libmp3lame", "kind": "mp3", "rate": 44100}, 0.03),
    "mp3-avi": ({"codec": "libmp3lame", "kind": "avi", "rate": 44100}, 0.03),
    "opus-webm": ({"codec": "libopus", "kind": "webm"}, 0.002),
    "opus-ogg": ({"codec": "libopus", "kind": "ogg"}, 0.002),
    "flac": ({"codec": "flac", "kind": "flac"}, 0.002),
    "u8-8000": ({"codec": "pcm_u8", "kind": "wav", "rate": 8000, "layout": "mono"}, 0.002),
    "s16-8000": ({"codec": "pcm_s16le", "kind": "wav", "rate": 8000, "layout": "mono"}, 0.002),
    "s16-16000": ({"codec": "pcm_s16le", "kind": "wav", "rate": 16000, "layout": "mono"}, 0.002),
    "s24-96000": ({"codec": "pcm_s24le", "kind": "mov", "rate": 96000}, 0.002),
    "f64-stereo": ({"codec": "pcm_f64le", "kind": "wav"}, 0.002),
    "pcm-7.1": ({"codec": "pcm_s16le", "kind": "wav", "layout": "7.1"}, 0.002),
    "aac-5.1": ({"codec": "aac", "kind": "mp4", "layout": "5.1"}, 0.002),
}


def decode(data: bytes, max_s: float = 60.0) -> NDArray[np.float32]:
    return decode_audio(data, max_s)


def wav(seconds: float = 2.0, **options: Any) -> bytes:
    options = {"codec": "pcm_s16le", "kind": "wav", "rate": 16_000, "layout": "mono"} | options
    return encode_audio(tracks=[tone(seconds, rate=options["rate"])], **options)


@pytest.mark.parametrize("name", KINDS)
def test_tone_is_at_its_time_and_level(name: str) -> None:
    options, delay = KINDS[name]
    rate = options.get("rate", 48_000)
    samples = decode(encode_audio(tracks=[tone(2.0, rate=rate)], **options))
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=0.06)
    assert -0.001 <= onset_s(samples) - 0.5 <= delay
    # All channels have the tone, so their mix has its level.
    assert amplitude(samples[12_000:28_000]) == pytest.approx(AMPLITUDE, rel=0.05)


@pytest.mark.parametrize(
    ("layout", "channel", "share"),
    [
        # FFmpeg's weights: front 0.707, center 1, LFE 0, others 0.5; divided by their sum.
        ("stereo", 1, 0.5),
        ("5.1", 0, 0.707 / 3.414),
        ("5.1", 2, 1 / 3.414),
        ("5.1", 3, 0.0),
        ("5.1", 5, 0.5 / 3.414),
        ("7.1", 2, 1 / 4.414),
    ],
)
def test_mix_keeps_the_center_and_cannot_clip(layout: str, channel: int, share: float) -> None:
    options = {"codec": "pcm_s16le", "kind": "wav", "layout": layout}
    data = encode_audio(tracks=[tone(2.0, rate=48_000)], channels=(channel,), **options)
    level = amplitude(decode(data)[12_000:28_000])
    assert level == pytest.approx(AMPLITUDE * share, rel=0.02, abs=1e-4)
    full = encode_audio(tracks=[2 * tone(2.0, rate=48_000)], **options)
    assert amplitude(decode(full)[12_000:28_000]) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("kind", ["matroska", "mp4", "mpegts", "flv"])
def test_audio_that_starts_late_is_as_late_as_the_pictures_say(kind: str) -> None:
    """The video starts at 0, the audio at 1.5 s, and its tone at 2 s."""
    data = encode_audio(
        "aac", kind, [tone(2.0, rate=44_100)], rate=44_100, start_s=1.5, num_pictures=20
    )
    with av.open(io.BytesIO(data)) as container:
        first_picture_s = next(container.decode(video=0)).time
    samples = decode(data)
    assert onset_s(samples) - first_picture_s == pytest.approx(2.0, abs=0.03)
    assert len(samples) / SAMPLE_RATE - first_picture_s == pytest.approx(3.5, abs=0.06)
    assert not samples[: round(1.4 * SAMPLE_RATE)].any()


def test_audio_longer_than_the_video_is_complete() -> None:
    data = encode_audio("aac", "mp4", [tone(4.0, onset_s=3.0, rate=48_000)], num_pictures=10)
    samples = decode(data)
    assert len(samples) / SAMPLE_RATE == pytest.approx(4.0, abs=0.03)
    assert onset_s(samples) == pytest.approx(3.0, abs=0.002)


def pitch(samples: NDArray[np.float32]) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples)))) * SAMPLE_RATE / len(samples)


@pytest.mark.parametrize(("default", "expected"), [(None, 1000), (1, 3000)])
def test_default_track_is_decoded_else_the_first(default: int | None, expected: int) -> None:
    tracks = [tone(1.0, pitch=hertz, rate=48_000) for hertz in (1000, 3000)]
    data = encode_audio("aac", "matroska", tracks, default=default)
    assert pitch(decode(data)) == pytest.approx(expected, abs=10)


def spoil(wanted: Callable[[int], bool]) -> Callable[[list[av.Packet]], list[av.Packet]]:
    """Replace packets of a first audio track by junk, by their number in the file."""

    def change(packets: list[av.Packet]) -> list[av.Packet]:
        changed = []
        for i, packet in enumerate(packets):
            if wanted(i) and packet.stream.index == 0:
                junk = av.Packet(b"\xff" * packet.size)
                junk.stream, junk.time_base = packet.stream, packet.time_base
                junk.pts, junk.dts, junk.duration = packet.pts, packet.dts, packet.duration
                packet = junk
            changed.append(packet)
        return changed

    return change


def test_track_that_gives_nothing_is_passed_over() -> None:
    tracks = [tone(1.0, pitch=hertz, rate=48_000) for hertz in (1000, 3000)]
    data = encode_audio("ac3", "matroska", tracks, change=spoil(lambda i: True))
    assert pitch(decode(data)) == pytest.approx(3000, abs=10)


def test_broken_packets_are_skipped_and_the_rest_stays_in_place() -> None:
    signal = tone(4.0, onset_s=3.0, rate=48_000)
    data = encode_audio("ac3", "matroska", [signal], change=spoil(lambda i: 20 <= i < 60))
    samples = decode(data)
    assert onset_s(samples) == pytest.approx(3.0, abs=0.03)
    assert len(samples) / SAMPLE_RATE == pytest.approx(4.0, abs=0.06)


def test_nothing_decoded_is_an_error_with_the_cause() -> None:
    data = encode_audio("ac3", "matroska", [tone(1.0, rate=48_000)], change=spoil(lambda i: True))
    with pytest.raises(
        MediaError, match=r"no audio could be decoded \(\d+ packets, ac3: "
    ) as caught:
        decode(data)
    assert type(caught.value) is MediaError


def test_channels_that_cannot_be_mixed_are_an_error_with_the_cause() -> None:
    """Nine channels have no layout, so nothing says which one is the center."""
    file = io.BytesIO()
    with wave.open(file, "wb") as nine:
        nine.setnchannels(9)
        nine.setsampwidth(2)
        nine.setframerate(16_000)
        nine.writeframes(bytes(18 * 16_000))
    with pytest.raises(MediaError, match="no audio could be decoded .* pcm_s16le: .*Invalid arg"):
        decode(file.getvalue())


@pytest.mark.parametrize("kind", ["matroska", "mpegts", "flv", "adts", "mp3", "ogg"])
def test_truncated_file_gives_what_is_there(kind: str) -> None:
    codec = {"mp3": "libmp3lame", "ogg": "libopus"}.get(kind, "aac")
    rate = 48_000 if kind == "ogg" else 44_100
    data = encode_audio(codec, kind, [tone(4.0, rate=rate)], rate=rate)
    samples = decode(data[: len(data) * 6 // 10])
    assert 1.5 < len(samples) / SAMPLE_RATE < 3.2
    assert onset_s(samples) == pytest.approx(0.5, abs=0.04)


def test_mp4_without_its_index_is_an_unknown_format() -> None:
    data = encode_audio("aac", "mp4", [tone(1.0, rate=48_000)])
    with pytest.raises(UnknownFormat):
        decode(data[: len(data) // 2])


def test_rate_and_channels_may_change_midway() -> None:
    """As when two recordings are joined: here the times of the second go on."""
    first, second = (
        encode_audio("mp2", "mpegts", [tone(2.0, rate=rate)], rate=rate, layout=layout, start_s=s)
        for rate, layout, s in ((44_100, "stereo", 0.0), (48_000, "mono", 2.0))
    )
    samples = decode(first + second)
    assert len(samples) / SAMPLE_RATE == pytest.approx(4.0, abs=0.06)
    assert onset_s(samples) == pytest.approx(0.5, abs=0.03)
    assert not samples[round(2.1 * SAMPLE_RATE) : round(2.4 * SAMPLE_RATE)].any()
    assert onset_s(samples[2 * SAMPLE_RATE :][2000:]) == pytest.approx(0.375, abs=0.04)


def frame(
    start_s: float | None, seconds: float = 1.0, *, level: float = 0.5, rate: int = 16_000
) -> av.AudioFrame:
    """A frame of one value."""
    values = np.full((1, round(seconds * rate)), level, np.float32)
    made = av.AudioFrame.from_ndarray(values, "flt", "mono")
    made.sample_rate, made.time_base = rate, Fraction(1, rate)
    made.pts = None if start_s is None else round(start_s * rate)
    return made


def placed(*frames: av.AudioFrame, origin_s: float = 0.0) -> list[float]:
    """The levels on a timeline, ten a second, each in the middle of its tenth."""
    timeline = Timeline(origin_s, max_s=2 * HOUR)
    for one in frames:
        timeline.add(one)
    samples = timeline.finish()
    assert len(samples) % 1600 == 0
    return [round(float(value), 2) for value in samples[800::1600]]


def test_frame_of_any_size_is_taken_whole() -> None:
    long, short = frame(0, 300.0), frame(300.0, 0.1, level=0.25)
    assert placed(long, short) == 3000 * [0.5] + [0.25]


def test_gap_becomes_silence() -> None:
    assert placed(frame(0), frame(1.5, level=0.25)) == 10 * [0.5] + 5 * [0.0] + 10 * [0.25]


def test_overlap_is_cut() -> None:
    assert placed(frame(0), frame(0.7, level=0.25)) == 10 * [0.5] + 7 * [0.25]
    inside = frame(0.2, 0.3, level=0.25)
    assert placed(frame(0), inside, frame(1.0, level=0.1)) == 10 * [0.5] + 10 * [0.1]


def test_negative_times_are_cut_off() -> None:
    assert placed(frame(-0.5), frame(0.5, level=0.25)) == 5 * [0.5] + 10 * [0.25]
    assert placed(frame(-3), frame(-2), frame(-1), frame(0, level=0.25)) == 10 * [0.25]


def test_rounded_and_missing_times_leave_no_gap() -> None:
    jitter = [frame(0), frame(1.04), frame(1.97), frame(None), frame(4.05)]
    assert placed(*jitter) == 50 * [0.5]
    assert placed(frame(None), frame(None)) == 20 * [0.5]


def test_small_errors_do_not_add_up() -> None:
    """Frames whose stated rate is 4 % too high: each tells its time, and the audio keeps to it."""
    late = [frame(1.04 * i) for i in range(30)]
    timeline = Timeline(0.0, max_s=60)
    for one in late:
        timeline.add(one)
    assert len(timeline.finish()) / SAMPLE_RATE == pytest.approx(1.04 * 29 + 1, abs=0.1)


def test_damaged_times_neither_fill_memory_nor_lose_audio() -> None:
    one, two, three = frame(0), frame(20 * HOUR, level=0.25), frame(2, level=0.1)
    assert placed(one, two, three) == 10 * [0.5] + 10 * [0.25] + 10 * [0.1]
    # Times that restart, as in joined recordings: the second is appended to the first.
    assert placed(frame(0), frame(1), frame(0, level=0.25), frame(1, level=0.1)) == (
        20 * [0.5] + 10 * [0.25] + 10 * [0.1]
    )
    assert placed(frame(30 * HOUR), frame(30 * HOUR + 2)) == 10 * [0.5] + 10 * [0.0] + 10 * [0.5]
    longest = placed(frame(0), frame(MAX_GAP_S))
    assert len(longest) == 10 * (MAX_GAP_S + 1) and longest.count(0.0) == 10 * (MAX_GAP_S - 1)


def test_recording_with_a_late_start_begins_at_zero() -> None:
    start_s = 20 * HOUR
    assert placed(frame(start_s + 1), origin_s=start_s) == 10 * [0.0] + 10 * [0.5]
    data = encode_audio("aac", "mpegts", [tone(2.0, rate=48_000)], start_s=start_s)
    assert onset_s(decode(data)) == pytest.approx(0.5, abs=0.03)


def test_file_with_a_damaged_time_keeps_its_audio() -> None:
    def change(packets: list[av.Packet]) -> list[av.Packet]:
        for packet in packets[len(packets) // 2 :]:
            packet.pts += 10 * 3600 * 48_000
            packet.dts += 10 * 3600 * 48_000
        return packets

    data = encode_audio("aac", "matroska", [tone(2.0, rate=48_000)], change=change)
    samples = decode(data)
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=0.03)
    assert amplitude(samples[12_000:28_000]) == pytest.approx(AMPLITUDE, rel=0.05)


def test_long_audio_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = wav(3.0)
    assert len(decode(data, 3.0)) == 3 * SAMPLE_RATE
    monkeypatch.setattr(Timeline, "add", lambda *_: pytest.fail("decoded"))
    with pytest.raises(TooLarge, match=r"limit of 0.03 min \(transcribe.max_audio_min\)"):
        decode(data, 1.8)


def test_silence_before_the_audio_counts_for_the_limit() -> None:
    timeline = Timeline(0.0, max_s=4.0)
    timeline.add(frame(0))
    timeline.add(frame(1))
    with pytest.raises(TooLarge, match="transcribe.max_audio_min"):
        timeline.add(frame(5))


def test_absurd_length_in_the_header_does_not_matter() -> None:
    good = encode_audio("aac", "mp4", [tone(2.0, rate=48_000)])
    for name, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        data = bytearray(good)
        struct.pack_into(">I", data, data.index(name) + offset, 2**32 - 1)
        assert onset_s(decode(bytes(data))) == pytest.approx(0.5, abs=0.002)


def test_files_without_audio() -> None:
    video = encode("libx264", numbered_frames(4))
    picture = io.BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "JPEG")
    for data in (video, picture.getvalue()):
        with pytest.raises(NoAudio, match="no audio track"):
            decode(data)
    with pytest.raises(NoAudio, match="the audio track is empty"):
        decode(encode_audio("pcm_s16le", "matroska", [tone(0)], num_pictures=4))


def test_rubbish_and_playlists_are_refused() -> None:
    for data in (b"<html>not found</html>", random.Random(5).randbytes(10_000), b"\0" * 5000):
        with pytest.raises(UnknownFormat):
            decode(data)
    with pytest.raises(RefusedMedia, match="playlist"):
        decode(b"ffconcat version 1.0\nfile 'http://127.0.0.1/a.mp4'\n")


def test_limits_name_the_settings_of_transcribe(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav())
    assert len(read_audio(str(path), TranscribeSettings())) == 2 * SAMPLE_RATE
    for name in ("max_file_mb", "max_audio_min"):
        with pytest.raises(TooLarge, match=f"transcribe.{name}"):
            read_audio(str(path), TranscribeSettings(**{name: 0.01}))
    with pytest.raises(MissingMedia):
        read_audio(str(tmp_path / "b.wav"), TranscribeSettings())


def test_isolated_process_names_its_memory_setting() -> None:
    with IsolatedProcess(20, 0.2, "transcribe.memory_limit_gb") as process:
        samples = process.call(read_audio, wav(), TranscribeSettings())
        assert samples.dtype == np.float32 and onset_s(samples) == pytest.approx(0.5, abs=0.002)
        with pytest.raises(TooLarge, match="the limit is transcribe.memory_limit_gb"):
            process.call(bytearray, 300_000_000)


@pytest.mark.parametrize("name", ["aac-mp4", "aac-mkv", "aac-ts", "mp3", "opus-ogg", "flac"])
def test_corrupted_files_give_audio_or_a_media_error(name: str) -> None:
    options, _ = KINDS[name]
    rng = random.Random(name)
    good = encode_audio(tracks=[tone(1.0, rate=options.get("rate", 48_000))], **options)
    decoded = 0
    with IsolatedProcess(time_limit_s=20, memory_limit_gb=1) as process:
        for _ in range(40):
            data = bytearray(good)
            for _ in range(rng.choice((1, 3, 10))):
                at = rng.randrange(len(data) if rng.random() < 0.5 else min(1500, len(data)))
                if rng.random() < 0.5:
                    data[at] ^= 1 << rng.randrange(8)
                else:
                    data[at : at + 4] = rng.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4)))
            try:
                samples = process.call(decode_audio, bytes(data), 60.0)
            except MediaError:
                continue
            assert samples.ndim == 1 and np.isfinite(samples).all() and np.abs(samples).max() <= 1
            assert len(samples) <= 60 * SAMPLE_RATE
            decoded += 1
    assert decoded > 5


def real_files() -> list[Path]:
    return sorted(path for path in VIDEOS.rglob("*.*") if path.is_file())


def audio_codecs() -> dict[str, str]:
    with (VIDEOS / "manifest.csv").open(newline="") as file:
        return {row["file"]: row["acodec"] for row in csv.DictReader(file)}


@pytest.mark.skipif(not VIDEOS.exists(), reason="real videos are not present")
@pytest.mark.parametrize("path", real_files(), ids=lambda path: str(path.relative_to(VIDEOS)))
def test_real_files_give_audio_or_a_typed_reason(path: Path) -> None:
    codec = audio_codecs().get(str(path.relative_to(VIDEOS)))
    if not codec:
        with pytest.raises((NoAudio, UnknownFormat)):
            read_audio(str(path), TranscribeSettings())
        return
    samples = read_audio(str(path), TranscribeSettings())
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        last = max(one.time + one.samples / one.rate for one in container.decode(stream))
    assert len(samples) / SAMPLE_RATE == pytest.approx(last, abs=0.01)
    assert np.isfinite(samples).all()
