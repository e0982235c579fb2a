import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ampere.retrieval.index import (
    MISSING_SCORE,
    DomainIndex,
    Hit,
    SearchIndex,
    merge_ranked,
    read_meta,
    stacked_vectors,
)
from ampere.retrieval.index_build import (
    changed_rows,
    measured_recall,
    split_queries,
    violations,
    write_base,
    write_delta,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.config.index import IndexSettings
from ampere.records import Domain
from ampere.retrieval import index_types
from ampere.retrieval.index_types import MIN_TRAIN_ROWS
from tests.helpers.index_rows import DIM, alike, rows

MIXED = [Domain.PAGE] * 5 + [Domain.LIVE] * 4 + [Domain.PAGE] * 3
EXACT = IndexSettings(type="flat")


def base(
    folder: Path, table: pa.Table, meta: dict[str, str] | None = None, shards: int = 1
) -> SearchIndex:
    folder.mkdir(exist_ok=True)
    write_base(folder, table, IndexSettings(type="flat", shards=shards), meta or {})
    return SearchIndex(folder)


def delta(folder: Path, base_folder: Path, table: pa.Table) -> SearchIndex:
    folder.mkdir()
    write_delta(folder, base_folder, table, {})
    return SearchIndex(folder)


def ids_and_scores(
    index: SearchIndex, queries: np.ndarray, domain: Domain, k: int
) -> list[list[tuple[str, float]]]:
    hits = index.search(queries, domain, k).hits()
    return [[(hit.sample_id, round(hit.score, 5)) for hit in of_query] for of_query in hits]


def test_merge_ranked_by_hand() -> None:
    """Rows 0 to 4 have the ids e, d, c, b, a: of two ties the higher row number comes first."""
    order = np.array([5, 4, 3, 2, 1])
    scores = np.array(
        [
            [0.5, 0.9, 0.5 + 5e-7, 0.1],  # rows 0 and 2 differ by less than 1e-6: a tie
            [0.5, 0.5 + 8e-7, 0.5 + 16e-7, 0.5 + 40e-7],  # a chain of three, and one above it
            [0.2, 7.0, 0.3, 7.0],  # the missing ones have any score
        ],
        np.float32,
    )
    places = np.array([[0, 1, 2, 3], [0, 1, 2, 4], [3, -1, 1, -1]])
    merged_scores, merged_places = merge_ranked(scores, places, order)
    assert merged_places.tolist() == [[1, 2, 0, 3], [4, 2, 1, 0], [1, 3, -1, -1]]
    assert merged_scores.tolist() == [
        [scores[0, at] for at in (1, 2, 0, 3)],
        [scores[1, at] for at in (3, 2, 1, 0)],
        [scores[2, 2], scores[2, 0], MISSING_SCORE, MISSING_SCORE],
    ]


def test_merge_ranked_orders_ties_by_id_and_leaves_scores_sorted() -> None:
    """Row 0 has the first id, and a similarity in a last bit below row 1."""
    scores = np.array([[0.5, 0.5 + 5e-7]], np.float32)
    merged_scores, merged_places = merge_ranked(scores, np.array([[0, 1]]), np.array([1, 2]))
    assert merged_places.tolist() == [[0, 1]]
    assert merged_scores.tolist() == [[scores[0, 1], scores[0, 0]]]


def test_round_trip_against_brute_force(tmp_path: Path) -> None:
    table = rows(MIXED)
    index = base(tmp_path, table, {"model": "m@1"})
    assert index.meta["model"] == "m@1"
    assert {name: of_domain["rows"] for name, of_domain in index.meta["domains"].items()} == {
        "page": 8,
        "live": 4,
    }
    queries = stacked_vectors(rows([Domain.PAGE] * 6, seed=1)["vector"])
    vectors = stacked_vectors(table["vector"])
    for domain in (Domain.PAGE, Domain.LIVE):
        members = [i for i, of in enumerate(MIXED) if of is domain]
        for query, hits in zip(queries, index.search(queries, domain, 3).hits(), strict=True):
            best = sorted(members, key=lambda i: -float(query @ vectors[i]))[:3]
            assert [hit.sample_id for hit in hits] == [f"s{i}" for i in best]
            assert [hit.score for hit in hits] == pytest.approx(
                [float(query @ vectors[i]) for i in best], abs=1e-6
            )


def test_hit_has_the_columns_of_its_row(tmp_path: Path) -> None:
    table = rows(MIXED)
    vectors = stacked_vectors(table["vector"])
    hits = base(tmp_path, table).search(vectors[6:9], Domain.LIVE, 1).hits()
    assert [hit for (hit,) in hits] == [
        Hit(
            sample_id="s6",
            product_id=None,
            score=pytest.approx(1),
            text="text 6",
            media_uri="/media/6.jpg",
        ),
        Hit(
            sample_id="s7",
            product_id="p3",
            score=pytest.approx(1),
            text="text 7",
            media_uri="/media/7.jpg",
        ),
        Hit(
            sample_id="s8",
            product_id="p4",
            score=pytest.approx(1),
            text=None,
            media_uri="/media/8.jpg",
        ),
    ]


def test_k_above_the_size_of_the_domain(tmp_path: Path) -> None:
    index = base(tmp_path, rows(MIXED))
    query = np.eye(1, DIM, dtype=np.float32)
    (hits,) = index.search(query, Domain.LIVE, 100).hits()
    assert sorted(hit.sample_id for hit in hits) == ["s5", "s6", "s7", "s8"]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert index.search(query, Domain.SHORT, 5).hits() == [[]]  # no sample of this domain
    assert index.search(np.empty((0, DIM), np.float32), Domain.PAGE, 5).hits() == []


def test_results_are_columns_of_row_numbers(tmp_path: Path) -> None:
    """Columns are one chunk, also if the rows were written in several."""
    table = rows(MIXED)
    base(tmp_path / "base", pa.concat_tables([table.slice(0, 4), table.slice(4)]))
    index = delta(
        tmp_path / "delta",
        tmp_path / "base",
        pa.concat_tables([table, rows([Domain.LIVE], first=50)]),
    )
    result = index.search(stacked_vectors(table["vector"])[5:7], Domain.LIVE, 6)
    assert [column.num_chunks for column in result.rows.columns] == [1] * 4
    assert result.scores.shape == result.places.shape == (2, 6)
    assert (result.places[:, 5] == -1).all()  # four of the base and one added
    ids = [
        [result.rows["sample_id"][place].as_py() for place in line[:5]]
        for line in result.places.tolist()
    ]
    assert ids == [[hit.sample_id for hit in hits] for hits in result.hits()]
    assert [line[0] for line in ids] == ["s5", "s6"] and all("s50" in line for line in ids)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(list(Domain)), min_size=1, max_size=20),
    st.integers(1, 25),
    st.integers(1, 4),
)
def test_samples_are_returned_in_their_own_domain_only(
    tmp_path_factory: pytest.TempPathFactory, domains: list[Domain], k: int, shards: int
) -> None:
    index = base(tmp_path_factory.mktemp("index"), rows(domains), shards=shards)
    for domain in Domain:
        members = {f"s{i}" for i, of in enumerate(domains) if of is domain}
        (hits,) = index.search(np.eye(1, DIM, dtype=np.float32), domain, k).hits()
        assert len(hits) == min(k, len(members))
        assert {hit.sample_id for hit in hits} <= members


def test_rows_in_several_chunks_and_slices(tmp_path: Path) -> None:
    whole = rows(MIXED)
    chunks = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 5), whole.slice(7)])
    assert np.array_equal(stacked_vectors(chunks["vector"]), stacked_vectors(whole["vector"]))
    assert np.array_equal(
        stacked_vectors(whole.slice(3, 4)["vector"]), stacked_vectors(whole["vector"])[3:7]
    )
    (hit,) = (
        base(tmp_path, chunks)
        .search(stacked_vectors(whole["vector"])[9:10], Domain.PAGE, 1)
        .hits()[0]
    )
    assert hit.sample_id == "s9"


def test_shards_together_equal_one_index(tmp_path: Path) -> None:
    table, queries = rows(MIXED * 5), stacked_vectors(rows(MIXED, seed=1)["vector"])
    whole = base(tmp_path / "one", table)
    sharded = base(tmp_path / "three", table, shards=3)
    assert ids_and_scores(sharded, queries, Domain.PAGE, 7) == ids_and_scores(
        whole, queries, Domain.PAGE, 7
    )
    alone = [SearchIndex(tmp_path / "three", shards=[number]) for number in range(3)]
    seen = [
        {name for name, _ in ids_and_scores(index, queries[:1], Domain.LIVE, 100)[0]}
        for index in alone
    ]
    assert all(seen) and sum(map(len, seen)) == len(set().union(*seen)) == 20


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_delta_equals_a_rebuilt_index(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shards: int
) -> None:
    """Rows are deleted, updated and added in any domain; vectors are random, or many are equal."""
    folder, equal = tmp_path_factory.mktemp("index"), data.draw(st.booleans())
    domains = data.draw(st.lists(st.sampled_from(list(Domain)), min_size=1, max_size=12))
    before = alike(rows(domains)) if equal else rows(domains)
    changes = [data.draw(st.sampled_from(["same", "deleted", "updated"])) for _ in domains]
    same, updated = (np.array([c == kind for c in changes]) for kind in ("same", "updated"))
    new_vectors = rows(domains, seed=5).filter(updated)
    added = rows(data.draw(st.lists(st.sampled_from(list(Domain)), max_size=6)), seed=6, first=100)
    if equal:
        new_vectors, added = alike(new_vectors, shift=1), alike(added)
    after = pa.concat_tables(
        [before.filter(same), new_vectors, *([added] if added.num_rows else [])]
    )
    base(folder / "base", before, shards=shards)
    updated_index = delta(folder / "delta", folder / "base", after)
    rebuilt = base(folder / "rebuilt", after) if len(after) else None
    queries = stacked_vectors(rows([Domain.PAGE] * 4, seed=9)["vector"])
    for domain in Domain:
        expected = ids_and_scores(rebuilt, queries, domain, 5) if rebuilt else [[]] * 4
        assert ids_and_scores(updated_index, queries, domain, 5) == expected
    changed = changes.count("deleted") + 2 * changes.count("updated") + added.num_rows
    assert changed_rows(folder / "base", after) == (changed, len(domains))


def test_ties_are_ordered_by_id_across_segments(tmp_path: Path) -> None:
    """s3 is in the base, s2 and s4 are added, and all three have the same vector."""
    table = rows([Domain.PAGE] * 6)
    one = table["vector"][3]
    vectors = pa.array(
        [one if at in (2, 3, 4) else vector for at, vector in enumerate(table["vector"])]
    )
    table = table.set_column(
        table.column_names.index("vector"), "vector", vectors.cast(pa.list_(pa.float32()))
    )
    base(tmp_path / "base", table.take([0, 1, 3, 5]))
    index = delta(tmp_path / "delta", tmp_path / "base", table)
    query = stacked_vectors(table["vector"])[3:4]
    for k in (1, 2, 3):
        ids = [name for name, _ in ids_and_scores(index, query, Domain.PAGE, k)[0]]
        assert ids == ["s2", "s3", "s4"][:k]


@pytest.mark.parametrize("kind", ["flat", "ivf-flat", "ivf-pq", "hnsw"])
def test_deleted_items_need_no_selector_per_query(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = rows([Domain.PAGE] * 700)
    (tmp_path / "base").mkdir()
    write_base(tmp_path / "base", table, IndexSettings(type=kind, target_recall=0.5), {})  # type: ignore[arg-type]
    remaining = table.filter(np.arange(700) % 7 > 0)
    index = delta(tmp_path / "delta", tmp_path / "base", remaining)
    for selector in ("IDSelectorBatch", "IDSelectorBitmap", "IDSelectorNot"):
        monkeypatch.delattr(index_types.faiss, selector)
    names = {
        name
        for line in ids_and_scores(index, stacked_vectors(table["vector"]), Domain.PAGE, 3)
        for name, _ in line
    }
    assert names <= set(remaining["sample_id"].to_pylist()) and len(names) > 500


def test_graph_search_goes_past_many_deleted_items() -> None:
    """The 50 nearest of 400 items to one query are deleted, more than the spare candidates."""
    vectors = stacked_vectors(rows([Domain.PAGE] * 400)["vector"])
    queries = np.stack([vectors[0], -vectors[0]])
    nearest = np.argsort(-queries @ vectors.T, axis=1)
    deleted = np.isin(np.arange(400), nearest[0, :50])
    index = index_types.build("hnsw", vectors)
    scores, places = index_types.search(
        index, queries, 8, 400, index_types.delete_items(index, deleted), extra=2
    )
    np.testing.assert_array_equal(places, [nearest[0, 50:60], nearest[1, :10]])
    np.testing.assert_allclose(
        scores, np.take_along_axis(queries @ vectors.T, places, axis=1), atol=1e-6
    )


def test_meta_file_is_readable_json(tmp_path: Path) -> None:
    base(tmp_path, rows(MIXED), {"model": "云岚"})
    text = (tmp_path / "index.json").read_text(encoding="utf-8")
    assert "云岚" in text and json.loads(text)["domains"]["page"]["shards"][0]["recall_at_10"] == 1


@pytest.mark.parametrize("name", ["page-0.faiss", "page-0.parquet"])
def test_changed_file_is_a_checksum_mismatch(tmp_path: Path, name: str) -> None:
    base(tmp_path, rows(MIXED))
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(
        ValueError, match=rf"checksum mismatch: .*{name} \(expected \w{{8}}…, found \w{{8}}…\)"
    ):
        SearchIndex(tmp_path)


def test_folder_without_index_json_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        SearchIndex(tmp_path)


def test_recall_of_an_index_with_missing_rows(tmp_path: Path) -> None:
    """Half of the rows are missing from the index: recall is about one half."""
    table = rows([Domain.PAGE, Domain.SHORT] * 200)
    assert measured_recall(base(tmp_path / "whole", table), table) == {"page": 1, "short": 1}
    half = measured_recall(base(tmp_path / "half", table.slice(0, 200)), table)
    assert all(0.4 < recall < 0.6 for recall in half.values())


def test_stale_result_fails_at_any_recall(tmp_path: Path) -> None:
    """The index still holds a deleted sample, an old vector, and the only row of a domain."""
    table = rows([Domain.PAGE] * 30 + [Domain.SHORT] * 30 + [Domain.LIVE])
    index = base(tmp_path, table)
    assert measured_recall(index, table)["page"] == 1
    without = table.filter(np.arange(61) != 7)
    message = r"for page returned deleted or stale rows \(6 of 150 answers\), e.g. sample 's7'"
    with pytest.raises(RuntimeError, match=message):
        measured_recall(index, without)
    other = pa.concat_tables([without, rows([Domain.PAGE], seed=5, first=7)])
    with pytest.raises(RuntimeError, match="index for page returned .* sample 's7'"):
        measured_recall(index, other)
    with pytest.raises(RuntimeError, match="index for live returned .* sample 's60'"):
        measured_recall(index, table.slice(0, 60))


def test_sample_returned_by_two_rows_fails(tmp_path: Path) -> None:
    """Its text changed and its vector did not, so the old row is returned with a right score."""
    table = rows([Domain.PAGE] * 20)
    base(tmp_path / "base", table)
    changed = table.slice(7, 1).set_column(6, "fingerprint", pa.array(["another text"]))
    after = pa.concat_tables([table.filter(np.arange(20) != 7), changed])
    delta(tmp_path / "delta", tmp_path / "base", after)
    assert measured_recall(SearchIndex(tmp_path / "delta"), after) == {"page": 1}
    meta = json.loads((tmp_path / "delta/index.json").read_text("utf-8"))
    (tmp_path / "delta/page.gone.parquet").unlink()
    del meta["files"]["page.gone.parquet"]
    (tmp_path / "delta/index.json").write_text(json.dumps(meta), "utf-8")
    with pytest.raises(RuntimeError, match="index for page returned .* sample 's7'"):
        measured_recall(SearchIndex(tmp_path / "delta"), after)


def test_trials_are_stored_with_their_measurements(tmp_path: Path) -> None:
    table = rows([Domain.PAGE] * 700 + [Domain.SHORT] * 40)
    lines = write_base(tmp_path, table, IndexSettings(type="hnsw", target_recall=0.5), {})
    domains = json.loads((tmp_path / "index.json").read_text("utf-8"))["domains"]
    (page,), (short,) = domains["page"]["shards"], domains["short"]["shards"]
    assert [trial["factory"] for trial in page["trials"]] == ["HNSW32"] and page["effort"] >= 16
    assert set(page["trials"][0]) >= {
        "recall_at_1",
        "recall_at_10",
        "latency_ms",
        "memory_gb",
        "build_s",
        "effort",
    }
    assert 1e9 * page["memory_gb"] > (tmp_path / "page-0.faiss").stat().st_size + 700 * len(
        "/media/0.jpg"
    )
    assert short["type"] == "flat"  # too few to train on
    assert "short: flat: recall@1 1.0000" in lines[1]
    assert lines[1].endswith("(exact search is fast enough for 40 vectors)")


@pytest.mark.parametrize(
    ("shorts", "tuning", "validation"), [(1, 1, 1), (2, 1, 1), (5, 3, 2), (5000, 1000, 1000)]
)
def test_gate_and_tuner_use_different_queries(shorts: int, tuning: int, validation: int) -> None:
    vectors = [[float(number + 1), 0.0] for number in range(shorts + 1)]
    table = pa.table({"domain": ["page"] + ["short"] * shorts, "vector": vectors})
    one, other = (set(part[:, 0].tolist()) for part in split_queries(table, Domain.PAGE))
    assert (len(one), len(other)) == (tuning, validation)
    assert 1.0 not in one | other  # the page itself
    assert shorts == 1 or not one & other


def test_added_rows_count_for_memory_and_latency(tmp_path: Path) -> None:
    table = rows(MIXED * 5)
    whole = base(tmp_path / "v1", table)
    more = pa.concat_tables([table, rows(MIXED, seed=1, first=100)])
    index = delta(tmp_path / "v2", tmp_path / "v1", more)
    assert violations(index, more, IndexSettings()) == []
    assert violations(index, more, IndexSettings(max_memory_gb=1, max_latency_ms=1000)) == []
    base_gb = max(
        domain["shards"][0]["memory_gb"] for domain in index.base_meta["domains"].values()
    )
    assert violations(index, more, IndexSettings(max_memory_gb=base_gb)) == [
        f"index for page needs 0.000 GB including the delta; limit index.max_memory_gb={base_gb}"
    ]
    page, live = violations(index, more, IndexSettings(max_latency_ms=1e-9))
    assert page.startswith("index for page takes 0.")
    assert live.endswith("ms per query including the delta; limit index.max_latency_ms=1e-09")
    # A base was chosen by the tuner to meet the limits.
    assert violations(whole, table, IndexSettings(max_latency_ms=1e-9)) == []


def test_limits_apply_to_each_shard_with_its_added_rows(tmp_path: Path) -> None:
    table, added = rows(MIXED * 5), rows(MIXED, seed=1, first=100)
    base(tmp_path / "v1", table, shards=3)
    more = pa.concat_tables([table, added])
    index = delta(tmp_path / "v2", tmp_path / "v1", more)
    shards = [
        shard["memory_gb"]
        for domain in index.base_meta["domains"].values()
        for shard in domain["shards"]
    ]
    added_gb = added.nbytes / 1e9
    roomy = IndexSettings(max_memory_gb=max(shards) + added_gb / 2)
    assert violations(index, more, roomy) == []
    assert violations(index, more, IndexSettings(max_memory_gb=max(shards)))


def test_segments_of_shard_equal_a_searcher_of_that_shard(tmp_path: Path) -> None:
    table = rows(MIXED * 5)
    base(tmp_path / "v1", table, shards=3)
    more = pa.concat_tables([table.slice(4), rows(MIXED, seed=1, first=100)])
    index = delta(tmp_path / "v2", tmp_path / "v1", more)
    queries = stacked_vectors(rows(MIXED, seed=2)["vector"])
    for number in range(3):
        alone = SearchIndex(tmp_path / "v2", [number]).domains[Domain.PAGE]
        narrowed = DomainIndex(index.domains[Domain.PAGE].segments_of_shard(number, 3))
        assert narrowed.rows.equals(alone.rows)
        for ours, expected in zip(
            narrowed.nearest(queries, 5), alone.nearest(queries, 5), strict=True
        ):
            np.testing.assert_array_equal(ours, expected)


def test_k_below_one_is_rejected(tmp_path: Path) -> None:
    index = base(tmp_path / "v1", rows(MIXED))
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        index.search(stacked_vectors(rows(MIXED)["vector"]), Domain.PAGE, 0)


def test_domain_emptied_by_a_delta_has_no_results(tmp_path: Path) -> None:
    """A graph keeps deleted items behind tombstones, so the domain is still loaded."""
    table = rows([Domain.PAGE] * MIN_TRAIN_ROWS + [Domain.LIVE] * MIN_TRAIN_ROWS)
    (tmp_path / "v1").mkdir()
    write_base(
        tmp_path / "v1", table, IndexSettings(type="hnsw", target_recall=0.9, max_memory_gb=1.0), {}
    )
    [shard] = read_meta(tmp_path / "v1")["domains"]["live"]["shards"]
    assert shard["type"] == "hnsw"
    pages = table.filter(pc.equal(table["domain"], "page"))
    index = delta(tmp_path / "v2", tmp_path / "v1", pages)
    assert violations(index, pages, IndexSettings(max_memory_gb=1.0)) == []
    assert ids_and_scores(index, stacked_vectors(pages["vector"])[:2], Domain.LIVE, 3) == [[], []]
    assert measured_recall(index, pages)["page"] > 0.9


def test_other_shards_are_not_verified(tmp_path: Path) -> None:
    base(tmp_path / "v1", rows(MIXED * 5), shards=2)
    (tmp_path / "v1" / "page-1.faiss").write_text("damaged")
    SearchIndex(tmp_path / "v1", [0])
    with pytest.raises(ValueError, match=r"checksum mismatch: .*page-1.faiss"):
        SearchIndex(tmp_path / "v1", [1])
