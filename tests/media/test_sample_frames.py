import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ampere.catalog.clip_file import encode_clip
from ampere.config import DecodeSettings
from ampere.media.decoder import Clip, MediaError, uniform_indices
from ampere.media.decord_decoder import DecordDecoder
from ampere.media.images import decode_jpeg
from ampere.media.query import query_frames
from ampere.media.sample_frames import StoredFrames, decode_sample, read_bytes
from ampere.pipeline.decode import decode_batch, decode_stage
from ampere.records import FRAMES, SAMPLES, Domain, MediaKind, Sample, Split
from ampere.workspace import Workspace

from .test_decoder import indices_of, numbered_frames


class FakeDecoder:
    """Gives `numbered_frames` of a video of `length` frames at 2 frames a second, or fails."""

    name = "fake"

    def __init__(self, length: int = 24) -> None:
        self.length = length

    def decode(self, data: bytes, num_frames: int) -> Clip:
        if data == b"broken":
            raise MediaError("the fake cannot read this")
        chosen = uniform_indices(self.length, num_frames)
        return Clip(frames=numbered_frames(self.length)[chosen], timestamps_s=np.array(chosen) / 2)


def png(level: int, width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (level,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def decode(
    kind: MediaKind, media: list[bytes], *, num_frames: int = 4, short_side: int = 32, **more: object
) -> StoredFrames:
    options = {"decoder": FakeDecoder(), "jpeg_quality": 95} | more
    return decode_sample(kind, media, num_frames=num_frames, short_side=short_side, **options)  # type: ignore[arg-type]


def shown(stored: StoredFrames) -> list[int]:
    return indices_of(np.stack([np.asarray(decode_jpeg(jpeg)) for jpeg in stored.frames]))


def test_an_image_is_one_frame() -> None:
    data = png(10 + 7 * 5, 80, 40)
    stored = decode(MediaKind.IMAGE, [data])
    assert shown(stored) == [5]
    assert stored.timestamps_s == [0.0]
    assert (stored.width, stored.height) == (64, 32)
    assert decode_jpeg(stored.frames[0]).size == (64, 32)
    assert stored.decoder == "pillow"
    assert stored.source_hash == hashlib.blake2b(data, digest_size=16).hexdigest()


def test_frames_are_chosen_evenly_with_their_times() -> None:
    media = [png(10 + 7 * i) for i in range(10)]
    stored = decode(MediaKind.FRAMES, media, timestamps_s=[0.5 * i for i in range(10)])
    assert shown(stored) == [1, 3, 6, 8]
    assert stored.timestamps_s == [0.5, 1.5, 3.0, 4.0]
    assert stored.source_hash == hashlib.blake2b(b"".join(media), digest_size=16).hexdigest()


def test_few_frames_are_repeated_and_unknown_times_stay_unknown() -> None:
    stored = decode(MediaKind.FRAMES, [png(10), png(17)])
    assert shown(stored) == [0, 0, 1, 1]
    assert stored.timestamps_s == []


def test_a_frame_that_is_not_chosen_may_be_broken() -> None:
    media = [png(10 + 7 * i) for i in range(10)]
    media[0] = b"junk"
    assert shown(decode(MediaKind.FRAMES, media)) == [1, 3, 6, 8]
    media[3] = b"junk"
    with pytest.raises(MediaError, match="not an image"):
        decode(MediaKind.FRAMES, media)


def test_a_video_goes_to_the_decoder() -> None:
    stored = decode(MediaKind.VIDEO, [b"any"], num_frames=3)
    assert shown(stored) == [4, 12, 20]
    assert stored.timestamps_s == [2.0, 6.0, 10.0]
    assert stored.decoder == "fake"
    assert (stored.width, stored.height) == (32, 32)
    with pytest.raises(MediaError, match="fake cannot read"):
        decode(MediaKind.VIDEO, [b"broken"])


def test_a_real_video_file(tmp_path: Path) -> None:
    encode_clip(tmp_path / "clip.mp4", numbered_frames(20), 8, None)
    stored = decode(MediaKind.VIDEO, [(tmp_path / "clip.mp4").read_bytes()], decoder=DecordDecoder())
    assert shown(stored) == [2, 7, 12, 17]
    assert stored.timestamps_s == pytest.approx([2 / 8, 7 / 8, 12 / 8, 17 / 8])
    assert stored.decoder == "decord"


@pytest.mark.parametrize("kind", MediaKind)
def test_no_media_at_all(kind: MediaKind) -> None:
    with pytest.raises(MediaError, match="no media file"):
        decode(kind, [])


def test_read_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a b,'c.jpg"
    path.write_bytes(b"abc")
    assert read_bytes(str(path)) == read_bytes(f"file://{tmp_path}/a b,'c.jpg") == b"abc"
    path.write_bytes(b"")
    with pytest.raises(MediaError, match="is empty: .*c.jpg"):
        read_bytes(str(path))
    with pytest.raises(MediaError, match="not found: .*none.jpg"):
        read_bytes(str(tmp_path / "none.jpg"))
    with pytest.raises(MediaError, match="cannot be read"):
        read_bytes(str(tmp_path))


def test_a_query_is_decoded_like_a_sample(tmp_path: Path) -> None:
    encode_clip(tmp_path / "clip.mp4", numbered_frames(20), 8, None)
    video, image = (tmp_path / "clip.mp4").read_bytes(), png(90, 100, 50)
    sizes = {"num_frames": 4, "short_side": 32, "jpeg_quality": 90}
    for data, kind in ((video, MediaKind.VIDEO), (image, MediaKind.IMAGE)):
        stored = decode_sample(kind, [data], decoder=DecordDecoder(), **sizes)  # type: ignore[arg-type]
        assert query_frames(data, **sizes) == stored.frames
    assert len(query_frames(video, **sizes)) == 4
    assert len(query_frames(image, **sizes)) == 1


@pytest.mark.parametrize("data", [b"", b"neither of both", bytes(5000), png(9)[:60]])
def test_a_query_that_is_no_media(data: bytes) -> None:
    with pytest.raises(MediaError, match="neither an image .* nor a video"):
        query_frames(data, num_frames=4, short_side=32, jpeg_quality=90)


def sample(name: str, media: list[Path], domain: Domain, kind: MediaKind) -> dict[str, object]:
    uris = tuple(map(str, media))
    made = Sample(
        sample_id=name, product_id="p", domain=domain, split=Split.TRAIN, text=None, media_kind=kind, media_uris=uris
    )
    return made.to_row()


SETTINGS = DecodeSettings(num_frames=4, short_side=32, batch_size=8)


def test_one_bad_file_costs_its_own_row(workspace: Workspace, tmp_path: Path) -> None:
    good, junk = tmp_path / "good.png", tmp_path / "junk.png"
    good.write_bytes(png(80))
    junk.write_bytes(b"junk")
    workspace.table(SAMPLES).upsert(
        [
            sample("good", [good], Domain.PAGE, MediaKind.IMAGE),
            sample("junk", [junk], Domain.PAGE, MediaKind.IMAGE),
            sample("gone", [tmp_path / "gone.mp4"], Domain.SHORT, MediaKind.VIDEO),
            sample("clip", [good, good], Domain.LIVE, MediaKind.FRAMES),
        ]
    )
    stage = decode_stage(workspace, SETTINGS)
    rows = {row["sample_id"]: row for row in decode_batch(stage.wanted, SETTINGS).to_pylist()}
    assert {name: row["error_type"] for name, row in rows.items()} == {
        "good": None,
        "junk": "MediaError",
        "gone": "MediaError",
        "clip": None,
    }
    assert "gone.mp4" in rows["gone"]["error_message"]
    assert len(rows["good"]["frames"]) == 1 and len(rows["clip"]["frames"]) == 4
    assert rows["good"]["sampling"] == "uniform"
    workspace.table(FRAMES).upsert([{k: v for k, v in rows["good"].items() if not k.startswith("error_")}])
    assert workspace.table(FRAMES).count() == 1


def test_a_page_of_several_pictures_or_a_video_has_one_frame(workspace: Workspace, tmp_path: Path) -> None:
    """The frames table holds one frame for a page, and training and the network's page way rest on it."""
    for level in range(3):
        (tmp_path / f"{level}.png").write_bytes(png(80 + level))
    encode_clip(tmp_path / "clip.mp4", numbered_frames(20), 8, None)
    pictures = [tmp_path / f"{level}.png" for level in range(3)]
    workspace.table(SAMPLES).upsert(
        [
            sample("pictures", pictures, Domain.PAGE, MediaKind.FRAMES),
            sample("film", [tmp_path / "clip.mp4"], Domain.PAGE, MediaKind.VIDEO),
        ]
    )
    rows = decode_batch(decode_stage(workspace, SETTINGS).wanted, SETTINGS).to_pylist()
    assert {row["sample_id"]: len(row["frames"]) for row in rows} == {"pictures": 1, "film": 1}


def test_what_the_frames_depend_on_makes_them_due_again(workspace: Workspace, tmp_path: Path) -> None:
    def wanted(row: dict[str, object], settings: DecodeSettings = SETTINGS) -> str:
        workspace.table(SAMPLES).upsert([row])
        (name,) = decode_stage(workspace, settings).wanted["fingerprint"].to_pylist()
        return name

    row = sample("a", [tmp_path / "a.png", tmp_path / "b.png"], Domain.LIVE, MediaKind.FRAMES)
    first = wanted(row)
    assert wanted(row) == first
    assert wanted(row | {"text": "other words"}) == first
    assert wanted(row, DecodeSettings(num_frames=4, short_side=32, batch_size=1, cpus=2)) == first
    others = [
        wanted(row | {"media_uris": [str(tmp_path / "b.png"), str(tmp_path / "a.png")]}),
        wanted(row | {"timestamps_s": [0.0, 2.0]}),
        wanted(row, DecodeSettings(num_frames=8, short_side=32)),
        wanted(row, DecodeSettings(num_frames=4, short_side=64)),
        wanted(row, DecodeSettings(num_frames=4, short_side=32, jpeg_quality=80)),
    ]
    assert len({first, *others}) == 6
