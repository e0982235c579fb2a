import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.config import IndexSettings
from ampere.records import Domain
from ampere.retrieval.index import Hit, SearchIndex, stacked_vectors
from ampere.retrieval.index_build import changed_rows, measured_recall, write_base, write_delta

from .index_rows import DIM, rows

MIXED = [Domain.PAGE] * 5 + [Domain.LIVE] * 4 + [Domain.PAGE] * 3
EXACT = IndexSettings(type="flat")


def base(folder: Path, table: pa.Table, meta: dict[str, str] | None = None, shards: int = 1) -> SearchIndex:
    folder.mkdir(exist_ok=True)
    write_base(folder, table, IndexSettings(type="flat", shards=shards), meta or {})
    return SearchIndex(folder)


def found(index: SearchIndex, queries: np.ndarray, domain: Domain, k: int) -> list[list[tuple[str, float]]]:
    return [[(hit.sample_id, round(hit.score, 5)) for hit in hits] for hits in index.search(queries, domain, k)]


def test_round_trip_against_brute_force(tmp_path: Path) -> None:
    table = rows(MIXED)
    index = base(tmp_path, table, {"model": "m@1"})
    assert index.meta["model"] == "m@1"
    assert {name: found["rows"] for name, found in index.meta["domains"].items()} == {"page": 8, "live": 4}
    queries = stacked_vectors(rows([Domain.PAGE] * 6, seed=1)["vector"])
    vectors = stacked_vectors(table["vector"])
    for domain in (Domain.PAGE, Domain.LIVE):
        members = [i for i, of in enumerate(MIXED) if of is domain]
        for query, hits in zip(queries, index.search(queries, domain, 3), strict=True):
            best = sorted(members, key=lambda i: -float(query @ vectors[i]))[:3]
            assert [hit.sample_id for hit in hits] == [f"s{i}" for i in best]
            assert [hit.score for hit in hits] == pytest.approx([float(query @ vectors[i]) for i in best], abs=1e-6)


def test_a_hit_shows_what_the_row_holds(tmp_path: Path) -> None:
    table = rows(MIXED)
    vectors = stacked_vectors(table["vector"])
    hits = base(tmp_path, table).search(vectors[6:9], Domain.LIVE, 1)
    assert [hit for (hit,) in hits] == [
        Hit(sample_id="s6", product_id=None, score=pytest.approx(1), text="text 6", media_uri="/media/6.jpg"),
        Hit(sample_id="s7", product_id="p3", score=pytest.approx(1), text="text 7", media_uri="/media/7.jpg"),
        Hit(sample_id="s8", product_id="p4", score=pytest.approx(1), text=None, media_uri="/media/8.jpg"),
    ]


def test_more_answers_than_the_domain_holds(tmp_path: Path) -> None:
    index = base(tmp_path, rows(MIXED))
    query = np.eye(1, DIM, dtype=np.float32)
    (hits,) = index.search(query, Domain.LIVE, 100)
    assert sorted(hit.sample_id for hit in hits) == ["s5", "s6", "s7", "s8"]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert index.search(query, Domain.SHORT, 5) == [[]]  # no sample of this domain at all
    assert index.search(np.empty((0, DIM), np.float32), Domain.PAGE, 5) == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(list(Domain)), min_size=1, max_size=20), st.integers(1, 25), st.integers(1, 4))
def test_every_sample_is_found_in_its_own_domain_only(
    tmp_path_factory: pytest.TempPathFactory, domains: list[Domain], k: int, shards: int
) -> None:
    index = base(tmp_path_factory.mktemp("index"), rows(domains), shards=shards)
    for domain in Domain:
        members = {f"s{i}" for i, of in enumerate(domains) if of is domain}
        (hits,) = index.search(np.eye(1, DIM, dtype=np.float32), domain, k)
        assert len(hits) == min(k, len(members))
        assert {hit.sample_id for hit in hits} <= members


def test_rows_in_several_chunks_and_slices(tmp_path: Path) -> None:
    whole = rows(MIXED)
    parts = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 5), whole.slice(7)])
    assert np.array_equal(stacked_vectors(parts["vector"]), stacked_vectors(whole["vector"]))
    assert np.array_equal(stacked_vectors(whole.slice(3, 4)["vector"]), stacked_vectors(whole["vector"])[3:7])
    (hit,) = base(tmp_path, parts).search(stacked_vectors(whole["vector"])[9:10], Domain.PAGE, 1)[0]
    assert hit.sample_id == "s9"


def test_shards_together_answer_like_one_index_and_alone_share_the_samples(tmp_path: Path) -> None:
    table, queries = rows(MIXED * 5), stacked_vectors(rows(MIXED, seed=1)["vector"])
    whole = base(tmp_path / "one", table)
    parts = base(tmp_path / "three", table, shards=3)
    assert found(parts, queries, Domain.PAGE, 7) == found(whole, queries, Domain.PAGE, 7)
    alone = [SearchIndex(tmp_path / "three", shards=[number]) for number in range(3)]
    seen = [{name for name, _ in found(index, queries[:1], Domain.LIVE, 100)[0]} for index in alone]
    assert all(seen) and sum(map(len, seen)) == len(set().union(*seen)) == 20


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_a_delta_answers_like_an_index_built_anew(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shards: int
) -> None:
    """Some rows are gone, some have another vector, some are new, in any domain."""
    folder = tmp_path_factory.mktemp("index")
    domains = data.draw(st.lists(st.sampled_from(list(Domain)), min_size=1, max_size=12))
    before = rows(domains)
    what = [data.draw(st.sampled_from(["stays", "goes", "changes"])) for _ in domains]
    stay, change = (before.filter(np.array([w == kind for w in what])) for kind in ("stays", "changes"))
    changed = rows(domains, seed=5).filter(np.array([w == "changes" for w in what]))
    fresh = rows(data.draw(st.lists(st.sampled_from(list(Domain)), max_size=6)), seed=6, first=100)
    after = pa.concat_tables([stay, changed, *([fresh] if fresh.num_rows else [])])
    base(folder / "base", before, shards=shards)
    (folder / "delta").mkdir()
    write_delta(folder / "delta", folder / "base", after, {})
    delta, anew = SearchIndex(folder / "delta"), base(folder / "anew", after) if after.num_rows else None
    queries = stacked_vectors(rows([Domain.PAGE] * 4, seed=9)["vector"])
    for domain in Domain:
        expected = found(anew, queries, domain, 5) if anew else [[]] * 4
        assert found(delta, queries, domain, 5) == expected
    gone = what.count("goes") + 2 * change.num_rows
    assert changed_rows(folder / "base", after) == (gone + fresh.num_rows, len(domains))


def test_the_meta_file_is_readable_json(tmp_path: Path) -> None:
    base(tmp_path, rows(MIXED), {"model": "云岚"})
    text = (tmp_path / "index.json").read_text(encoding="utf-8")
    assert "云岚" in text and json.loads(text)["domains"]["page"]["shards"][0]["recall_at_10"] == 1


@pytest.mark.parametrize("name", ["page-0.faiss", "page-0.parquet"])
def test_a_file_that_was_changed_is_refused(tmp_path: Path, name: str) -> None:
    base(tmp_path, rows(MIXED))
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name} is not the file that was written"):
        SearchIndex(tmp_path)


def test_a_folder_without_index(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        SearchIndex(tmp_path)


def test_recall_of_an_index_that_lacks_rows_is_measured(tmp_path: Path) -> None:
    """Half of the rows are not in the index: about half of the answers are not found."""
    table = rows([Domain.PAGE, Domain.SHORT] * 200)
    assert measured_recall(base(tmp_path / "whole", table), table) == {"page": 1, "short": 1}
    half = measured_recall(base(tmp_path / "half", table.slice(0, 200)), table)
    assert all(0.4 < recall < 0.6 for recall in half.values())
