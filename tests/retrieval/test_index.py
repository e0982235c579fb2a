import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.config.index import IndexSettings
from ampere.records import Domain
from ampere.retrieval import index_types
from ampere.retrieval.index import Hit, SearchIndex, read_meta, stacked_vectors
from ampere.retrieval.index_build import (
    changed_rows,
    check_limits,
    measured_recall,
    parted_queries,
    write_base,
    write_delta,
)
from ampere.retrieval.index_types import FEWEST
from tests.helpers.index_rows import DIM, alike, rows

MIXED = [Domain.PAGE] * 5 + [Domain.LIVE] * 4 + [Domain.PAGE] * 3
EXACT = IndexSettings(type="flat")


def base(
    folder: Path, table: pa.Table, meta: dict[str, str] | None = None, shards: int = 1
) -> SearchIndex:
    folder.mkdir(exist_ok=True)
    write_base(folder, table, IndexSettings(type="flat", shards=shards), meta or {})
    return SearchIndex(folder)


def delta(folder: Path, beside: Path, table: pa.Table) -> SearchIndex:
    folder.mkdir()
    write_delta(folder, beside, table, {})
    return SearchIndex(folder)


def found(
    index: SearchIndex, queries: np.ndarray, domain: Domain, k: int
) -> list[list[tuple[str, float]]]:
    hits = index.search(queries, domain, k).hits()
    return [[(hit.sample_id, round(hit.score, 5)) for hit in answers] for answers in hits]


def test_round_trip_against_brute_force(tmp_path: Path) -> None:
    table = rows(MIXED)
    index = base(tmp_path, table, {"model": "m@1"})
    assert index.meta["model"] == "m@1"
    assert {name: found["rows"] for name, found in index.meta["domains"].items()} == {
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


def test_a_hit_shows_what_the_row_holds(tmp_path: Path) -> None:
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


def test_more_answers_than_the_domain_holds(tmp_path: Path) -> None:
    index = base(tmp_path, rows(MIXED))
    query = np.eye(1, DIM, dtype=np.float32)
    (hits,) = index.search(query, Domain.LIVE, 100).hits()
    assert sorted(hit.sample_id for hit in hits) == ["s5", "s6", "s7", "s8"]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert index.search(query, Domain.SHORT, 5).hits() == [[]]  # no sample of this domain at all
    assert index.search(np.empty((0, DIM), np.float32), Domain.PAGE, 5).hits() == []


def test_answers_are_columns_of_places_in_one_table(tmp_path: Path) -> None:
    """Of what came in pieces too: no query has to join the columns that it takes from."""
    table = rows(MIXED)
    base(tmp_path / "base", pa.concat_tables([table.slice(0, 4), table.slice(4)]))
    index = delta(
        tmp_path / "delta",
        tmp_path / "base",
        pa.concat_tables([table, rows([Domain.LIVE], first=50)]),
    )
    answers = index.search(stacked_vectors(table["vector"])[5:7], Domain.LIVE, 6)
    assert [column.num_chunks for column in answers.rows.columns] == [1] * 4
    assert answers.scores.shape == answers.places.shape == (2, 6)
    assert (answers.places[:, 5] == -1).all()  # four of the base and one that came
    shown = [
        [answers.rows["sample_id"][place].as_py() for place in line[:5]]
        for line in answers.places.tolist()
    ]
    assert shown == [[hit.sample_id for hit in hits] for hits in answers.hits()]
    assert [line[0] for line in shown] == ["s5", "s6"] and all("s50" in line for line in shown)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(list(Domain)), min_size=1, max_size=20),
    st.integers(1, 25),
    st.integers(1, 4),
)
def test_every_sample_is_found_in_its_own_domain_only(
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
    parts = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 5), whole.slice(7)])
    assert np.array_equal(stacked_vectors(parts["vector"]), stacked_vectors(whole["vector"]))
    assert np.array_equal(
        stacked_vectors(whole.slice(3, 4)["vector"]), stacked_vectors(whole["vector"])[3:7]
    )
    (hit,) = (
        base(tmp_path, parts)
        .search(stacked_vectors(whole["vector"])[9:10], Domain.PAGE, 1)
        .hits()[0]
    )
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
    """Some rows are gone, some have another vector, some are new, in any domain; all differ, or many are equal."""
    folder, equal = tmp_path_factory.mktemp("index"), data.draw(st.booleans())
    domains = data.draw(st.lists(st.sampled_from(list(Domain)), min_size=1, max_size=12))
    before = alike(rows(domains)) if equal else rows(domains)
    what = [data.draw(st.sampled_from(["stays", "goes", "changes"])) for _ in domains]
    stay, change = (
        before.filter(np.array([w == kind for w in what])) for kind in ("stays", "changes")
    )
    changed = rows(domains, seed=5).filter(np.array([w == "changes" for w in what]))
    fresh = rows(data.draw(st.lists(st.sampled_from(list(Domain)), max_size=6)), seed=6, first=100)
    if equal:
        changed, fresh = alike(changed, shift=1), alike(fresh)
    after = pa.concat_tables([stay, changed, *([fresh] if fresh.num_rows else [])])
    base(folder / "base", before, shards=shards)
    beside, anew = (
        delta(folder / "delta", folder / "base", after),
        base(folder / "anew", after) if len(after) else None,
    )
    queries = stacked_vectors(rows([Domain.PAGE] * 4, seed=9)["vector"])
    for domain in Domain:
        expected = found(anew, queries, domain, 5) if anew else [[]] * 4
        assert found(beside, queries, domain, 5) == expected
    gone = what.count("goes") + 2 * change.num_rows
    assert changed_rows(folder / "base", after) == (gone + fresh.num_rows, len(domains))


def test_equals_stand_in_the_order_of_their_ids_whatever_their_part(tmp_path: Path) -> None:
    """s3 is in the base, s2 and s4 came later, and all three have one vector."""
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
        assert [name for name, _ in found(index, query, Domain.PAGE, k)[0]] == ["s2", "s3", "s4"][
            :k
        ]


@pytest.mark.parametrize("kind", ["flat", "ivf-flat", "ivf-pq", "hnsw"])
def test_what_is_gone_is_left_out_once_and_not_with_every_query(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = rows([Domain.PAGE] * 700)
    (tmp_path / "base").mkdir()
    write_base(tmp_path / "base", table, IndexSettings(type=kind, target_recall=0.5), {})  # type: ignore[arg-type]
    stays = np.arange(700) % 7 > 0
    index = delta(tmp_path / "delta", tmp_path / "base", table.filter(stays))
    for selector in ("IDSelectorBatch", "IDSelectorBitmap", "IDSelectorNot"):
        monkeypatch.delattr(index_types.faiss, selector)
    names = {
        name
        for line in found(index, stacked_vectors(table["vector"]), Domain.PAGE, 3)
        for name, _ in line
    }
    assert names <= set(table.filter(stays)["sample_id"].to_pylist()) and len(names) > 500


def test_a_graph_whose_nearest_items_are_gone_finds_those_behind_them() -> None:
    """One query lost its 50 nearest of 400 items, more than are drawn besides; the other lost none."""
    vectors = stacked_vectors(rows([Domain.PAGE] * 400)["vector"])
    queries = np.stack([vectors[0], -vectors[0]])
    nearest = np.argsort(-queries @ vectors.T, axis=1)
    gone = np.isin(np.arange(400), nearest[0, :50])
    index = index_types.build("hnsw", vectors)
    scores, places = index_types.search(
        index, queries, 8, 400, index_types.leave_out(index, gone), past=2
    )
    np.testing.assert_array_equal(places, [nearest[0, 50:60], nearest[1, :10]])
    np.testing.assert_allclose(
        scores, np.take_along_axis(queries @ vectors.T, places, axis=1), atol=1e-6
    )


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


def test_an_answer_that_should_be_gone_fails_whatever_the_recall(tmp_path: Path) -> None:
    """Rows that are in the index still: a sample, the old vector of one, the only one of a domain."""
    table = rows([Domain.PAGE] * 30 + [Domain.SHORT] * 30 + [Domain.LIVE])
    index = base(tmp_path, table)
    assert measured_recall(index, table)["page"] == 1
    without = table.filter(np.arange(61) != 7)
    with pytest.raises(
        RuntimeError, match="finds sample 's7' of domain page by a row that is gone or has changed"
    ):
        measured_recall(index, without)
    other = pa.concat_tables([without, rows([Domain.PAGE], seed=5, first=7)])
    with pytest.raises(RuntimeError, match="finds sample 's7' of domain page"):
        measured_recall(index, other)
    with pytest.raises(RuntimeError, match="finds sample 's60' of domain live"):
        measured_recall(index, table.slice(0, 60))


def test_a_sample_that_is_found_by_two_rows_fails(tmp_path: Path) -> None:
    """Its text changed and its vector did not, so that the old row leaks with the right similarity."""
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
    with pytest.raises(RuntimeError, match="finds sample 's7' of domain page"):
        measured_recall(SearchIndex(tmp_path / "delta"), after)


def test_every_trial_is_kept_with_its_parameters_and_all_that_is_held(tmp_path: Path) -> None:
    table = rows([Domain.PAGE] * 700 + [Domain.SHORT] * 40)
    told = write_base(tmp_path, table, IndexSettings(type="hnsw", target_recall=0.5), {})
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
    assert (
        short["type"] == "flat" and "short: flat: recall@1 1.0000" in told[1]
    )  # too few to train anything with
    assert told[1].endswith("(exact search: 40 vectors are few enough)")


@pytest.mark.parametrize(
    ("shorts", "tuned", "gated"), [(1, 1, 1), (2, 1, 1), (5, 3, 2), (5000, 1000, 1000)]
)
def test_the_gate_asks_other_queries_than_the_tuner(shorts: int, tuned: int, gated: int) -> None:
    vectors = [[float(number + 1), 0.0] for number in range(shorts + 1)]
    table = pa.table({"domain": ["page"] + ["short"] * shorts, "vector": vectors})
    one, other = (set(part[:, 0].tolist()) for part in parted_queries(table, Domain.PAGE))
    assert (len(one), len(other)) == (tuned, gated) and 1.0 not in one | other  # the page itself
    assert shorts == 1 or not one & other


def test_what_came_since_counts_for_memory_and_latency(tmp_path: Path) -> None:
    table = rows(MIXED * 5)
    base(tmp_path / "v1", table)
    more = pa.concat_tables([table, rows(MIXED, seed=1, first=100)])
    index = delta(tmp_path / "v2", tmp_path / "v1", more)
    check_limits(tmp_path / "v2", more, IndexSettings())
    check_limits(tmp_path / "v2", more, IndexSettings(max_memory_gb=1.0, max_latency_ms=1000.0))
    held = max(domain["shards"][0]["memory_gb"] for domain in index.base_meta["domains"].values())
    with pytest.raises(RuntimeError, match=r"takes 0.000 GB with what came since; .* are allowed"):
        check_limits(tmp_path / "v2", more, IndexSettings(max_memory_gb=held))
    with pytest.raises(RuntimeError, match="ms a query; 1e-09 are allowed"):
        check_limits(tmp_path / "v2", more, IndexSettings(max_latency_ms=1e-9))
    check_limits(
        tmp_path / "v1", table, IndexSettings(max_latency_ms=1e-9)
    )  # the tuner's own matter


def test_a_limit_is_of_a_shard_and_what_came_to_it(tmp_path: Path) -> None:
    table, came = rows(MIXED * 5), rows(MIXED, seed=1, first=100)
    index = base(tmp_path / "v1", table, shards=3)
    more = pa.concat_tables([table, came])
    delta(tmp_path / "v2", tmp_path / "v1", more)
    shards = [
        shard["memory_gb"]
        for domain in index.base_meta["domains"].values()
        for shard in domain["shards"]
    ]
    all_that_came = came.nbytes / 1e9
    check_limits(
        tmp_path / "v2", more, IndexSettings(max_memory_gb=max(shards) + all_that_came / 2)
    )
    with pytest.raises(RuntimeError, match="GB with what came since"):
        check_limits(tmp_path / "v2", more, IndexSettings(max_memory_gb=max(shards)))


def test_no_answers_are_not_asked_for(tmp_path: Path) -> None:
    index = base(tmp_path / "v1", rows(MIXED))
    with pytest.raises(ValueError, match="k is 0; ask for at least one"):
        index.search(stacked_vectors(rows(MIXED)["vector"]), Domain.PAGE, 0)


def test_a_domain_that_a_delta_empties_is_searched_in_vain(tmp_path: Path) -> None:
    """A graph or lists keep what is gone and leave it out, so the domain is still there."""
    table = rows([Domain.PAGE] * FEWEST + [Domain.LIVE] * FEWEST)
    (tmp_path / "v1").mkdir()
    write_base(
        tmp_path / "v1", table, IndexSettings(type="hnsw", target_recall=0.9, max_memory_gb=1.0), {}
    )
    [shard] = read_meta(tmp_path / "v1")["domains"]["live"]["shards"]
    assert shard["type"] == "hnsw"
    left = table.filter(pc.equal(table["domain"], "page"))
    index = delta(tmp_path / "v2", tmp_path / "v1", left)
    check_limits(tmp_path / "v2", left, IndexSettings(max_memory_gb=1.0))
    assert found(index, stacked_vectors(left["vector"])[:2], Domain.LIVE, 3) == [[], []]
    assert measured_recall(index, left)["page"] > 0.9


def test_a_shard_that_is_not_asked_for_is_not_looked_at(tmp_path: Path) -> None:
    base(tmp_path / "v1", rows(MIXED * 5), shards=2)
    (tmp_path / "v1" / "page-1.faiss").write_text("spoilt")
    SearchIndex(tmp_path / "v1", [0])
    with pytest.raises(ValueError, match=r"page-1.faiss is not the file that was written"):
        SearchIndex(tmp_path / "v1", [1])
