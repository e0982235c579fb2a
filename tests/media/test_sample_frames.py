import dataclasses
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ampere.config.decode import DecodeSettings
from ampere.media.decoder import MediaError, MissingMedia, TooLarge, UnknownFormat, UnreadableMedia
from ampere.media.images import decode_jpeg
from ampere.media.query import query_frames
from ampere.media.sample_frames import StoredFrames, decode_sample
from ampere.media.source import load
from ampere.pipeline.decode import DecodeStage, decode_batch, decode_media
from ampere.records import FRAMES, SAMPLES, Domain, MediaKind, Sample, Split
from ampere.store.workspace import Workspace
from tests.helpers.videos import encode, numbered_frames, numbers_of

SETTINGS = DecodeSettings(num_frames=4, short_side=32, jpeg_quality=95, batch_size=8)


def video(count: int = 20) -> bytes:
    return encode("libx264", numbered_frames(count), options={"bf": "2", "g": "8"})


def png(level: int, width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (level,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def decode(
    kind: MediaKind,
    media: list[bytes],
    *,
    timestamps_s: list[float] | None = None,
    **changes: object,
) -> StoredFrames:
    settings = dataclasses.replace(SETTINGS, **changes)  # type: ignore[arg-type]
    return decode_sample(kind, media, settings, timestamps_s=timestamps_s or [])


def shown(stored: StoredFrames) -> list[int]:
    """Gray levels of the frames, in steps of 7 from 10."""
    return [round((np.asarray(decode_jpeg(jpeg)).mean() - 10) / 7) for jpeg in stored.frames]


def numbers(jpegs: list[bytes]) -> list[int]:
    return numbers_of(np.stack([np.asarray(decode_jpeg(jpeg)) for jpeg in jpegs]))


def test_image_is_one_frame() -> None:
    data = png(10 + 7 * 5, 80, 40)
    stored = decode(MediaKind.FILE, [data])
    assert shown(stored) == [5]
    assert stored.timestamps_s == [0.0]
    assert (stored.width, stored.height) == (64, 32)
    assert decode_jpeg(stored.frames[0]).size == (64, 32)
    assert stored.decoder == "pillow"
    assert stored.source_hash == hashlib.blake2b(data, digest_size=16).hexdigest()


def test_frames_are_sampled_evenly_with_their_times() -> None:
    media = [png(10 + 7 * i) for i in range(10)]
    stored = decode(MediaKind.FRAMES, media, timestamps_s=[0.5 * i for i in range(10)])
    assert shown(stored) == [1, 3, 6, 8]
    assert stored.timestamps_s == [0.5, 1.5, 3.0, 4.0]
    chosen = b"".join(media[i] for i in (1, 3, 6, 8))  # the others are not read
    assert stored.source_hash == hashlib.blake2b(chosen, digest_size=16).hexdigest()
    assert stored.source_bytes == len(chosen)


def test_few_frames_are_repeated_and_unknown_times_stay_empty() -> None:
    stored = decode(MediaKind.FRAMES, [png(10), png(17)])
    assert shown(stored) == [0, 0, 1, 1]
    assert stored.timestamps_s == []


def test_broken_frame_that_is_not_sampled_does_no_harm() -> None:
    media = [png(10 + 7 * i) for i in range(10)]
    media[0] = b"junk"
    assert shown(decode(MediaKind.FRAMES, media)) == [1, 3, 6, 8]
    media[3] = b"junk"
    with pytest.raises(MediaError, match="not an image"):
        decode(MediaKind.FRAMES, media)


def test_video_is_sampled_and_scaled() -> None:
    stored = decode(MediaKind.FILE, [video()])
    assert numbers(stored.frames) == [2, 7, 12, 17]
    assert stored.timestamps_s == pytest.approx([2 / 25, 7 / 25, 12 / 25, 17 / 25])
    assert (stored.width, stored.height) == (43, 32)
    assert stored.decoder == "pyav"
    assert stored.source_bytes == len(video())
    assert numbers(decode(MediaKind.FILE, [video()], sampling="keyframe").frames) == [0, 8, 16, 16]
    with pytest.raises(MediaError):
        decode(MediaKind.FILE, [b"broken"])


def test_limits_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(video())
    for kind, media in ((MediaKind.FILE, video()), (MediaKind.FILE, png(9, 128, 96))):
        assert decode(kind, [media], max_megapixels=128 * 96 / 1e6).frames
        with pytest.raises(TooLarge, match="128 x 96"):
            decode(kind, [media], max_megapixels=128 * 95 / 1e6)
    size = len(video()) / 1e6
    settings = dataclasses.replace(SETTINGS, max_file_mb=size)
    assert decode_sample(MediaKind.FILE, [str(path)], settings).frames
    with pytest.raises(TooLarge, match="decode.max_file_mb"):
        decode_sample(
            MediaKind.FILE, [str(path)], dataclasses.replace(SETTINGS, max_file_mb=size * 0.999)
        )


@pytest.mark.parametrize("kind", MediaKind)
def test_sample_without_media_raises(kind: MediaKind) -> None:
    with pytest.raises(MissingMedia, match="no media file"):
        decode(kind, [])


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "a b,'c.jpg"
    path.write_bytes(b"abc")
    assert load(str(path), 3) == load(f"file://{tmp_path}/a b,'c.jpg", 9) == b"abc"
    with pytest.raises(TooLarge, match=r"exceeds the limit of 2e-06 MB .*c\.jpg"):
        load(str(path), 2)
    path.write_bytes(b"")
    with pytest.raises(MissingMedia, match="is empty: .*c.jpg"):
        load(str(path), 9)
    with pytest.raises(MissingMedia, match="not found: .*none.jpg"):
        load(str(tmp_path / "none.jpg"), 9)
    for uri in (str(tmp_path), "nonsense://x/y.jpg", "\0", ""):
        with pytest.raises(UnreadableMedia, match="cannot read"):
            load(uri, 9)


def test_query_is_decoded_like_a_sample() -> None:
    for data, kind, count in (
        (video(), MediaKind.FILE, 4),
        (png(90, 100, 50), MediaKind.FILE, 1),
    ):
        jpegs = query_frames(data, SETTINGS)
        assert jpegs == decode_sample(kind, [data], SETTINGS).frames
        assert len(jpegs) == count


def test_page_video_as_query_is_one_frame_as_in_the_catalog(tmp_path: Path) -> None:
    (tmp_path / "p.mp4").write_bytes(video())
    row = {
        "domain": "page",
        "media_kind": "file",
        "media_uris": [str(tmp_path / "p.mp4")],
        "timestamps_s": None,
    }
    stored = decode_media(row, SETTINGS)["frames"]
    assert query_frames(video(), SETTINGS, Domain.PAGE) == stored and len(stored) == 1


@pytest.mark.parametrize("data", [b"", b"neither of the two", bytes(5000)])
def test_query_that_is_no_media_raises(data: bytes) -> None:
    with pytest.raises(UnknownFormat, match="neither an image .* nor a video"):
        query_frames(data, SETTINGS)


def sample(name: str, media: list[Path], domain: Domain, kind: MediaKind) -> dict[str, object]:
    uris = tuple(map(str, media))
    made = Sample(
        sample_id=name,
        product_id="p",
        domain=domain,
        split=Split.TRAIN,
        text=None,
        media_kind=kind,
        media_uris=uris,
    )
    return made.to_row()


def decoded(
    workspace: Workspace, settings: DecodeSettings = SETTINGS
) -> dict[str, dict[str, object]]:
    """Result rows of the decode stage for all samples, by sample_id."""
    samples = workspace.table(SAMPLES).dataset()
    batch: pa.Table = DecodeStage(workspace, settings).inputs()
    rows = decode_batch(batch, settings, samples.uri, samples.version).to_pylist()
    return {row["sample_id"]: row for row in rows}


def test_bad_file_fails_its_own_row_only(workspace: Workspace, tmp_path: Path) -> None:
    good, junk = tmp_path / "good.png", tmp_path / "junk.png"
    good.write_bytes(png(80))
    junk.write_bytes(b"junk")
    workspace.table(SAMPLES).upsert(
        [
            sample("good", [good], Domain.PAGE, MediaKind.FILE),
            sample("junk", [junk], Domain.PAGE, MediaKind.FILE),
            sample("missing", [tmp_path / "missing.mp4"], Domain.SHORT, MediaKind.FILE),
            sample("clip", [good, good], Domain.LIVE, MediaKind.FRAMES),
        ]
    )
    rows = decoded(workspace)
    assert {name: row["error_type"] for name, row in rows.items()} == {
        "good": None,
        "junk": "UnknownFormat",
        "missing": "MissingMedia",
        "clip": None,
    }
    assert "missing.mp4" in rows["missing"]["error_message"]
    assert len(rows["good"]["frames"]) == 1 and len(rows["clip"]["frames"]) == 4
    assert rows["good"]["sampling"] == "uniform"
    workspace.table(FRAMES).upsert(
        [{k: v for k, v in rows["good"].items() if not k.startswith("error_")}]
    )
    assert workspace.table(FRAMES).count() == 1


def test_time_and_pixel_limits_fail_their_own_row_only(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "clip.mp4").write_bytes(video())
    os.mkfifo(tmp_path / "endless.mp4")  # a reader waits for a writer that never comes
    Image.new("L", (3000, 2000)).save(tmp_path / "large.png")
    workspace.table(SAMPLES).upsert(
        [
            sample("good", [tmp_path / "clip.mp4"], Domain.SHORT, MediaKind.FILE),
            sample("endless", [tmp_path / "endless.mp4"], Domain.SHORT, MediaKind.FILE),
            sample("large", [tmp_path / "large.png"], Domain.PAGE, MediaKind.FILE),
        ]
    )
    rows = decoded(workspace, dataclasses.replace(SETTINGS, time_limit_s=3, max_megapixels=5))
    assert {name: row["error_type"] for name, row in rows.items()} == {
        "good": None,
        "endless": "TimedOut",
        "large": "TooLarge",
    }
    assert rows["good"]["decoder"] == "pyav" and len(rows["good"]["frames"]) == 4


def test_page_with_several_pictures_or_a_video_has_one_frame(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Training and the network's page branch rely on one frame per page."""
    for level in range(3):
        (tmp_path / f"{level}.png").write_bytes(png(80 + level))
    (tmp_path / "clip.mp4").write_bytes(video())
    pictures = [tmp_path / f"{level}.png" for level in range(3)]
    workspace.table(SAMPLES).upsert(
        [
            sample("pictures", pictures, Domain.PAGE, MediaKind.FRAMES),
            sample("film", [tmp_path / "clip.mp4"], Domain.PAGE, MediaKind.FILE),
        ]
    )
    assert {name: len(row["frames"]) for name, row in decoded(workspace).items()} == {
        "pictures": 1,
        "film": 1,
    }


def test_fingerprint_changes_with_what_the_frames_depend_on(
    workspace: Workspace, tmp_path: Path
) -> None:
    def fingerprint(row: dict[str, object], settings: DecodeSettings = SETTINGS) -> str:
        workspace.table(SAMPLES).upsert([row])
        (value,) = DecodeStage(workspace, settings).inputs()["fingerprint"].to_pylist()
        return value

    row = sample("a", [tmp_path / "a.png", tmp_path / "b.png"], Domain.LIVE, MediaKind.FRAMES)
    first = fingerprint(row)
    assert fingerprint(row) == first
    assert fingerprint(row | {"text": "other words"}) == first
    assert (
        fingerprint(row, dataclasses.replace(SETTINGS, batch_size=1, cpus=2, time_limit_s=9))
        == first
    )
    others = [
        fingerprint(row | {"media_uris": [str(tmp_path / "b.png"), str(tmp_path / "a.png")]}),
        fingerprint(row | {"timestamps_s": [0.0, 2.0]}),
        fingerprint(row, dataclasses.replace(SETTINGS, num_frames=8)),
        fingerprint(row, dataclasses.replace(SETTINGS, short_side=64)),
        fingerprint(row, dataclasses.replace(SETTINGS, jpeg_quality=80)),
        fingerprint(row, dataclasses.replace(SETTINGS, sampling="keyframe")),
    ]
    assert len({first, *others}) == 7
