import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.records import Domain
from ampere.retrieval.index import Hit, SearchIndex, stacked_vectors, write_index

DIM = 8


def rows(domains: list[Domain], seed: int = 0) -> pa.Table:
    """Random unit vectors, one per given domain."""
    vectors = np.random.default_rng(seed).normal(size=(len(domains), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    count = range(len(domains))
    return pa.table(
        {
            "sample_id": [f"s{i}" for i in count],
            "product_id": [f"p{i // 2}" if i % 3 else None for i in count],
            "domain": [str(domain) for domain in domains],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), DIM),
            "text": [f"text {i}" if i % 4 else None for i in count],
            "media_uri": [f"/media/{i}.jpg" for i in count],
        }
    )


MIXED = [Domain.PAGE] * 5 + [Domain.LIVE] * 4 + [Domain.PAGE] * 3


def test_round_trip_against_brute_force(tmp_path: Path) -> None:
    table = rows(MIXED)
    write_index(tmp_path, table, {"model": "m@1", "split": "all"})
    index = SearchIndex(tmp_path)
    assert index.meta == {"model": "m@1", "split": "all", "domains": {"page": 8, "live": 4}, "type": "flat"}
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
    write_index(tmp_path, table, {})
    vectors = stacked_vectors(table["vector"])
    hits = SearchIndex(tmp_path).search(vectors[6:9], Domain.LIVE, 1)
    assert [hit for (hit,) in hits] == [
        Hit(sample_id="s6", product_id=None, score=pytest.approx(1), text="text 6", media_uri="/media/6.jpg"),
        Hit(sample_id="s7", product_id="p3", score=pytest.approx(1), text="text 7", media_uri="/media/7.jpg"),
        Hit(sample_id="s8", product_id="p4", score=pytest.approx(1), text=None, media_uri="/media/8.jpg"),
    ]


def test_more_answers_than_the_domain_holds(tmp_path: Path) -> None:
    write_index(tmp_path, rows(MIXED), {})
    index = SearchIndex(tmp_path)
    query = np.eye(1, DIM, dtype=np.float32)
    (hits,) = index.search(query, Domain.LIVE, 100)
    assert sorted(hit.sample_id for hit in hits) == ["s5", "s6", "s7", "s8"]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert index.search(query, Domain.SHORT, 5) == [[]]  # no sample of this domain at all
    assert index.search(np.empty((0, DIM), np.float32), Domain.PAGE, 5) == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(list(Domain)), min_size=1, max_size=20), st.integers(1, 25))
def test_every_sample_is_found_in_its_own_domain_only(
    tmp_path_factory: pytest.TempPathFactory, domains: list[Domain], k: int
) -> None:
    folder = tmp_path_factory.mktemp("index")
    write_index(folder, rows(domains), {})
    index = SearchIndex(folder)
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
    write_index(tmp_path, parts, {})
    (hit,) = SearchIndex(tmp_path).search(stacked_vectors(whole["vector"])[9:10], Domain.PAGE, 1)[0]
    assert hit.sample_id == "s9"


def test_the_meta_file_is_readable_json(tmp_path: Path) -> None:
    write_index(tmp_path, rows(MIXED), {"model": "云岚"})
    text = (tmp_path / "index.json").read_text(encoding="utf-8")
    assert "云岚" in text and json.loads(text)["domains"] == {"page": 8, "live": 4}


def test_a_folder_without_index(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        SearchIndex(tmp_path)
