"""The demo catalog: the plan, the texts, the files, and that it is reproducible."""

import csv
import json
import random
from collections import Counter
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ampere.records import Domain, Split
from ampere.synthetic.catalog import (
    COLUMNS,
    plan_catalog,
    write_demo_catalog,
    write_title,
    write_transcript,
)


def read_manifest(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "catalog"
    return write_demo_catalog(
        folder, products=20, shorts_per_product=1, lives_per_product=1, workers=1
    )


def test_plan_splits_whole_groups() -> None:
    items = plan_catalog(240, 0)
    test = [item for item in items if item.split is Split.TEST]
    assert len(items) == 240 and len(test) == 60
    assert Counter(item.product.category.category for item in test).most_common() == [
        (category, 6)
        for category in dict.fromkeys(item.product.category.category for item in items)
    ]
    sizes: Counter[tuple[str, str]] = Counter()
    splits: dict[tuple[str, str], Split] = {}
    for item in items:
        group = (item.product.category.category, item.group)
        sizes[group] += 1
        assert splits.setdefault(group, item.split) is item.split
        assert item.other.name != item.product.name
    assert set(sizes.values()) == {3, 4}
    assert len({item.product.name for item in items}) == 240


@pytest.mark.parametrize("products", [20, 33, 50])
def test_plan_of_few_products_has_both_splits_in_each_category(products: int) -> None:
    pairs = {(item.product.category.category, item.split) for item in plan_catalog(products, 3)}
    assert len(pairs) == 20


def test_plan_of_too_few_products_raises() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        plan_catalog(19, 0)


def test_title_contains_name_and_size() -> None:
    rng = random.Random(0)
    for item in plan_catalog(40, 0):
        title = write_title(item.product, rng)
        assert item.product.name in title
        assert item.product.features[0] in title
        assert len(title) < 80


@pytest.mark.parametrize("domain", [Domain.SHORT, Domain.LIVE])
def test_transcript_kinds_have_the_stated_shares(domain: Domain) -> None:
    rng, item = random.Random(0), plan_catalog(20, 0)[0]
    kinds: Counter[str] = Counter()
    for _ in range(1000):
        text, truth = write_transcript(item, domain, rng)
        assert bool(text) == (truth is not None)
        if truth is None:
            kinds["empty"] += 1
        elif truth["product_name"]:
            assert truth == {
                "product_name": item.product.name,
                "product_features": list(item.product.features),
            }
            kinds["other"] += item.other.name in text
        else:
            assert item.product.name not in text and truth["product_features"] == []
            kinds["chat"] += 1
    assert 10 <= kinds["empty"] <= 35
    assert 15 <= kinds["chat"] <= 50
    assert 50 <= kinds["other"] <= 180  # of 150; recognition garbles some of the names


def test_manifest_and_gold(catalog: Path) -> None:
    rows = read_manifest(catalog)
    assert catalog.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert len(rows) == len({row["sample_id"] for row in rows}) == 60
    assert Counter(row["domain"] for row in rows) == {"page": 20, "short": 20, "live": 20}
    names = {f"p{item.index:05d}": item.product.name for item in plan_catalog(20, 0)}
    by_split = {
        s: {row["product_id"] for row in rows if row["split"] == s} for s in ("train", "test")
    }
    assert not by_split["train"] & by_split["test"]
    assert not {names[p] for p in by_split["train"]} & {names[p] for p in by_split["test"]}
    clips = {row["sample_id"]: row for row in rows if row["domain"] != "page"}
    gold = [
        json.loads(line)
        for line in (catalog.parent / "gold.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [truth["sample_id"] for truth in gold] == [i for i, row in clips.items() if row["text"]]
    assert {truth["product_name"] for truth in gold} <= {*names.values(), ""}
    for truth in gold:
        assert truth["product_name"] in (names[clips[truth["sample_id"]]["product_id"]], "")


def test_media_decode(catalog: Path) -> None:
    sounds = []
    for row in read_manifest(catalog):
        media = catalog.parent / row["media"]
        if row["domain"] == "page":
            with Image.open(media) as page:
                assert page.size == (160, 160)
            continue
        low, high = (24, 32) if row["domain"] == "short" else (36, 48)
        frames = read_frames(media)
        assert low <= len(frames) <= high and frames.shape[1:] == (160, 128, 3)
        with av.open(str(media)) as container:
            sounds.append(len(container.streams.audio))
    assert set(sounds) == {0, 1}


def test_number_of_workers_does_not_change_the_files(catalog: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    again = write_demo_catalog(
        tmp_path,
        products=20,
        shorts_per_product=1,
        lives_per_product=1,
        workers=2,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(i, 20) for i in range(1, 21)]
    assert again.read_bytes() == catalog.read_bytes()
    assert (tmp_path / "gold.jsonl").read_bytes() == (catalog.parent / "gold.jsonl").read_bytes()
    for name in ("shorts/p00003-0.mp4", "lives/p00017-0.mp4"):
        assert np.array_equal(read_frames(tmp_path / name), read_frames(catalog.parent / name))


def test_complete_folder_is_not_rewritten(catalog: Path) -> None:
    before = (catalog.parent / "pages" / "p00000-0.jpg").stat().st_mtime_ns
    write = partial(
        write_demo_catalog,
        catalog.parent,
        products=20,
        shorts_per_product=1,
        lives_per_product=1,
    )
    assert write() == catalog
    assert (catalog.parent / "pages" / "p00000-0.jpg").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="Remove the folder or choose another"):
        write(seed=1)


def test_interrupted_run_is_repeated(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    write = partial(
        write_demo_catalog,
        tmp_path,
        products=20,
        shorts_per_product=0,
        lives_per_product=0,
        workers=1,
    )
    with pytest.raises(KeyboardInterrupt):
        write(on_progress=stop)
    assert not (tmp_path / "manifest.csv").exists()
    assert len(read_manifest(write())) == 20
    assert not list(tmp_path.glob("*.part"))


def test_user_manifest_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("mine")
    with pytest.raises(ValueError, match="manifest.csv that is not the demo's"):
        write_demo_catalog(tmp_path, products=20)
    assert (tmp_path / "manifest.csv").read_text() == "mine"
