import random
import resource
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ampere.catalog import rope
from ampere.catalog.problem import Problem
from ampere.catalog.rope import read_rope
from ampere.records import Domain, MediaKind, Sample, Split
from tests.helpers.catalogs import write_rope

GROCERY = Path(__file__).parents[2].parent / "shared" / "data" / "grocery"


def read(folder: Path, images: str | None = None) -> tuple[dict[str, Sample], dict[str, Problem]]:
    rows = list(read_rope(str(folder), images))
    samples = {row.sample_id: row for _, row in rows if isinstance(row, Sample)}
    return samples, {where: row for where, row in rows if isinstance(row, Problem)}


def test_nine_files_become_samples(tmp_path: Path) -> None:
    samples, problems = read(write_rope(tmp_path))
    assert not problems
    assert samples["page-10001"] == Sample(
        sample_id="page-10001",
        product_id="1000",
        domain=Domain.PAGE,
        split=Split.TRAIN,
        text="苹果, 红色, 500克",
        media_kind=MediaKind.FILE,
        media_uris=(f"{tmp_path}/images/p1.jpg",),
    )
    assert set(samples) == {"page-10001", "page-10002", "short-20001", "live-30001"}
    assert samples["page-10002"].text is None
    assert samples["page-10002"].media_uris == ("http://far/p2.jpg",)


def test_files_on_a_remote_store(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(write_rope(tmp_path)), "/rope", recursive=True)
    rows = [row for _, row in read_rope("memory://rope/")]
    page, *_, live = rows
    assert isinstance(page, Sample) and page.media_uris == ("memory://rope/images/p1.jpg",)
    assert isinstance(live, Sample) and len(rows) == 4 and live.timestamps_s == (0.0, 1.0, 3.25)


def test_frames_are_ordered_by_number_not_by_line(tmp_path: Path) -> None:
    samples, _ = read(write_rope(tmp_path))
    short, live = samples["short-20001"], samples["live-30001"]
    assert short.media_kind is live.media_kind is MediaKind.FRAMES
    assert [Path(uri).name for uri in short.media_uris] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [Path(uri).name for uri in live.media_uris] == ["x.jpg", "y.jpg", "z.jpg"]


def test_times_of_lives_are_seconds_from_the_first_frame(tmp_path: Path) -> None:
    samples, _ = read(write_rope(tmp_path))
    assert samples["live-30001"].timestamps_s == (0.0, 1.0, 3.25)
    assert samples["short-20001"].timestamps_s == ()


def test_missing_and_empty_texts_are_none(tmp_path: Path) -> None:
    samples, problems = read(write_rope(tmp_path, video_asrs=""))
    assert samples["short-20001"].text is None
    assert samples["live-30001"].text is None
    assert not problems
    assert read(write_rope(tmp_path))[0]["short-20001"].text == "家人们，来, 看"


def test_both_splits_are_read(tmp_path: Path) -> None:
    pages = "2000, 10001\n2001, 10009\n"
    write_rope(
        tmp_path,
        "test",
        product_pages_pair=pages,
        page_images="10001, t.jpg\n10009, u.jpg\n",
        product_videos_pair="",
        product_lives_pair="",
    )
    samples, _ = read(write_rope(tmp_path))
    assert samples["page-10009"].split is Split.TEST
    assert Counter(sample.split for sample in samples.values())[Split.TRAIN] >= 3
    # Ids repeat across splits only by mistake; prepare keeps the first and reports the second.
    ids = [row.sample_id for _, row in read_rope(str(tmp_path)) if isinstance(row, Sample)]
    assert ids.count("page-10001") == 2


@pytest.mark.parametrize("images", ["/else/where", "/else/where/"])
def test_images_may_be_elsewhere(tmp_path: Path, images: str) -> None:
    samples, _ = read(write_rope(tmp_path), images)
    assert samples["page-10001"].media_uris == ("/else/where/p1.jpg",)
    samples, _ = read(tmp_path, "https://cdn/x")
    assert samples["page-10001"].media_uris == ("https://cdn/x/p1.jpg",)


def test_invalid_lines_are_reported_with_file_and_line(tmp_path: Path) -> None:
    samples, problems = read(
        write_rope(
            tmp_path,
            product_pages_pair="1000, 10001\n\n1001\n, 10002\n1001, 10099\n",
            page_titles="10001\n10002, Lime\n",
            video_frames="20001, 0, a.jpg\n20001, zero, b.jpg\n20001, 1\n20001, 2, c.jpg\n",
            product_videos_pair="1000, 20001\n1000,\n",
        )
    )
    assert {where: problem.error_type for where, problem in problems.items()} == {
        "training_product_pages_pair.txt:3": "ParseError",
        "training_product_pages_pair.txt:4": "ParseError",
        "training_product_pages_pair.txt:5": "InvalidRow",
        "training_page_titles.txt:1": "ParseError",
        "training_video_frames.txt:2": "ParseError",
        "training_video_frames.txt:3": "ParseError",
        "training_product_videos_pair.txt:2": "ParseError",
        "training_page_titles.txt": "NoProduct",
        "training_page_images.txt": "NoProduct",
    }
    assert problems["training_page_titles.txt"].message == (
        "1 of its ids have no line in training_product_pages_pair.txt; skipped"
    )
    assert "1 fields; expected 2" in problems["training_product_pages_pair.txt:3"].message
    assert (
        "10099 has no line in training_page_images.txt"
        in problems["training_product_pages_pair.txt:5"].message
    )
    assert "'zero' is not a frame number" in problems["training_video_frames.txt:2"].message
    assert set(samples) == {"page-10001", "short-20001", "live-30001"}
    assert [Path(uri).name for uri in samples["short-20001"].media_uris] == ["a.jpg", "c.jpg"]


@pytest.mark.parametrize("number", ["--5", "²", "1.5", "0x1", "", "9" * 5000])
def test_invalid_frame_number_fails_its_line_only(tmp_path: Path, number: str) -> None:
    samples, problems = read(
        write_rope(tmp_path, video_frames=f"20001, 0, a.jpg\n20001, {number}, b.jpg\n")
    )
    assert list(problems) == ["training_video_frames.txt:2"]
    assert len(samples["short-20001"].media_uris) == 1


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-5, 5)), max_size=40), st.randoms())
def test_partitioned_reading_equals_reading_in_memory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frames: list[tuple[int, int]],
    rng: random.Random,
) -> None:
    """Partitioned reading against plain reading with everything in memory."""
    monkeypatch.setattr(rope, "BUCKET_BYTES", 100)
    pairs = [f"{i % 3}, {name}" for i, name in enumerate(rng.sample(range(7), 5))]
    texts = [f"{rng.randrange(7)}, text {i}" for i in range(6)]
    lines = [f"{name}, {number}, {i}.jpg" for i, (name, number) in enumerate(frames)]
    plain: dict[int, list[tuple[int, str]]] = {}
    for i, (name, number) in enumerate(frames):
        plain.setdefault(name, []).append((number, f"{i}.jpg"))
    text_of = {line.split(", ", 1)[0]: line.split(", ", 1)[1] for line in texts}
    samples, _ = read(
        write_rope(
            tmp_path,
            product_videos_pair="\n".join(pairs),
            video_asrs="\n".join(texts),
            video_frames="\n".join(lines),
        )
    )
    shorts = {name: sample for name, sample in samples.items() if sample.domain is Domain.SHORT}
    expected = {name for pair in pairs if int(name := pair.split(", ")[1]) in plain}
    assert shorts.keys() == {f"short-{name}" for name in expected}
    for name in expected:
        sample = shorts[f"short-{name}"]
        assert [Path(uri).name for uri in sample.media_uris] == [
            image for _, image in sorted(plain[int(name)])
        ]
        assert sample.text == text_of.get(name)


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=50))
def test_any_text_without_newline_is_preserved(tmp_path: Path, text: str) -> None:
    samples, problems = read(write_rope(tmp_path, page_titles=f"10001,{text}\n"))
    assert not problems
    assert samples["page-10001"].text == (text.strip() or None)


@pytest.mark.parametrize("time", ["9" * 19, "9" * 400, "１２"])
def test_invalid_time_fails_its_line_only(tmp_path: Path, time: str) -> None:
    samples, problems = read(
        write_rope(tmp_path, live_clips=f"30001, {time}, a.jpg\n30001, 5, b.jpg\n")
    )
    assert list(problems) == ["training_live_clips.txt:1"]
    assert samples["live-30001"].timestamps_s == (0.0,)


def test_very_long_transcript(tmp_path: Path) -> None:
    samples, problems = read(write_rope(tmp_path, video_asrs=f"20001, {'很长，' * 200_000}\n"))
    assert not problems
    assert samples["short-20001"].text == "很长，" * 200_000


def test_256_open_files_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rope, "BUCKET_BYTES", 1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    images = "".join(f"20001, {i}, {i}.jpg\n" for i in range(100))
    write_rope(tmp_path, video_frames=images)
    # Files left open by earlier tests; a command of its own has about 20.
    others = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (others + 236, limits[1]))
    try:
        samples, _ = read(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(samples["short-20001"].media_uris) == 100


def test_frame_without_a_name_is_a_problem(tmp_path: Path) -> None:
    samples, problems = read(write_rope(tmp_path, video_frames="20001, 0, a.jpg\n20001, 1,\n"))
    assert list(problems) == ["training_video_frames.txt:2"]
    assert [Path(uri).name for uri in samples["short-20001"].media_uris] == ["a.jpg"]


def test_byte_order_mark_is_not_part_of_the_first_id(tmp_path: Path) -> None:
    samples, _ = read(
        write_rope(
            tmp_path, product_pages_pair="\ufeff1000, 10001\n", page_titles="\ufeff10001, 苹果\n"
        )
    )
    assert samples["page-10001"].product_id == "1000"
    assert samples["page-10001"].text == "苹果"


def test_invalid_utf8_does_not_stop_reading(tmp_path: Path) -> None:
    write_rope(tmp_path)
    (tmp_path / "training_page_titles.txt").write_bytes("10001, 苹果\n10002, ok\n".encode("gbk"))
    samples, _ = read(tmp_path)
    assert samples["page-10002"].text == "ok"


def test_windows_line_endings(tmp_path: Path) -> None:
    samples, problems = read(
        write_rope(
            tmp_path,
            page_titles="10001, 苹果\r\n",
            page_images="10001, a.jpg\r\n",
            product_pages_pair="1000, 10001\r\n",
        )
    )
    assert not problems
    assert samples["page-10001"].text == "苹果"


def test_missing_file_is_named(tmp_path: Path) -> None:
    write_rope(tmp_path)
    (tmp_path / "training_live_asrs.txt").unlink()
    (tmp_path / "training_page_titles.txt").unlink()
    with pytest.raises(
        FileNotFoundError,
        match="missing ROPE files in .*: training_page_titles.txt, training_live_asrs.txt",
    ):
        next(read_rope(str(tmp_path)))


def test_empty_and_missing_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="no ROPE files"):
            next(read_rope(str(folder)))


@pytest.mark.skipif(not GROCERY.exists(), reason="the grocery catalog is not present")
def test_grocery_catalog() -> None:
    samples, problems = read(GROCERY)
    assert not problems
    assert len(samples) == 917
    assert len({sample.product_id for sample in samples.values()}) == 61
    by_split = {
        split: {s.product_id for s in samples.values() if s.split is split} for split in Split
    }
    assert len(by_split[Split.TRAIN]) == 41 and len(by_split[Split.TEST]) == 20
    assert not by_split[Split.TRAIN] & by_split[Split.TEST]
    clips = [sample for sample in samples.values() if sample.domain is not Domain.PAGE]
    assert len(clips) == 673
    assert all(sample.text is None and len(sample.media_uris) == 4 for sample in clips)
    assert all(
        sample.timestamps_s == (0, 1, 2, 3) for sample in clips if sample.domain is Domain.LIVE
    )
    assert all(Path(uri).exists() for sample in samples.values() for uri in sample.media_uris)
    apple = samples["page-10005"]
    assert apple.text is not None
    assert apple.text.startswith(
        "Granny Smith, Granny Smith is a green apple with white, firm pulp"
    )
