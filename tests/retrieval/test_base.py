"""Files of a base, and what the recall gate measures."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ampere.config.index import IndexSettings
from ampere.records import Domain
from ampere.retrieval.base import Base, read_meta
from ampere.retrieval.gate import (
    check_snapshot,
    measured_recall,
    searched_rows,
    violations,
)
from ampere.retrieval.segments import DomainIndex
from ampere.retrieval.snapshot import Snapshot
from ampere.retrieval.tuning import split_queries
from tests.helpers.search_tables import SearchTable, row, unit_vectors

MIXED = [Domain.PAGE] * 25 + [Domain.LIVE] * 20


def rows(domains: list[Domain], first: int = 0, seed: int = 0) -> list[dict[str, Any]]:
    vectors = unit_vectors(len(domains), seed)
    return [
        row(first + at, vectors[at], domain=str(domain), fingerprint=f"{seed * 10_000 + at:016x}")
        for at, domain in enumerate(domains)
    ]


@pytest.fixture
def table(tmp_path: Path) -> SearchTable:
    return SearchTable(tmp_path, rows(MIXED))


def test_meta_file_is_readable_json(table: SearchTable) -> None:
    folder = table.base_folder(table.build())
    meta = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    assert meta["domains"]["page"]["shards"][0]["recall_at_10"] == 1
    assert {name: part["rows"] for name, part in meta["domains"].items()} == {
        "page": 25,
        "live": 20,
    }


@pytest.mark.parametrize("name", ["page-0.faiss", "page-0.parquet"])
def test_changed_file_is_a_checksum_mismatch(table: SearchTable, name: str) -> None:
    file = table.base_folder(table.build()) / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        ValueError, match=rf"checksum mismatch: .*{name} \(expected \w{{8}}…, found \w{{8}}…\)"
    ):
        Base(file.parent)


def test_other_shards_are_not_verified(table: SearchTable) -> None:
    folder = table.base_folder(table.build(shards=2))
    (folder / "page-1.faiss").write_text("damaged")
    Base(folder, [0])
    with pytest.raises(ValueError, match=r"checksum mismatch: .*page-1.faiss"):
        Base(folder, [1])


def test_folder_without_index_json_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        Base(tmp_path)


def test_trials_are_stored_with_their_measurements(tmp_path: Path) -> None:
    table = SearchTable(tmp_path, rows([Domain.PAGE] * 700 + [Domain.SHORT] * 40))
    folder = table.base_folder(table.build(type="hnsw", target_recall=0.5))
    domains = read_meta(folder)["domains"]
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
    # The ids are held beside the index: a name, a row id and a fingerprint of each row.
    assert 1e9 * page["memory_gb"] > (folder / "page-0.faiss").stat().st_size + 700 * 21
    assert short["type"] == "flat"  # too few to train on


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


def test_recall_of_an_index_with_missing_rows(tmp_path: Path) -> None:
    """Half of the rows are missing from the snapshot: recall is about one half."""
    table = SearchTable(tmp_path, rows([Domain.PAGE, Domain.SHORT] * 100))
    table.build()
    half = table.searcher().snapshot
    table.upsert(rows([Domain.PAGE, Domain.SHORT] * 100, first=200, seed=1))
    whole = table.searcher().snapshot
    expected = searched_rows(whole)
    assert measured_recall(whole, expected) == {"page": 1, "short": 1}
    recalls = measured_recall(half, expected)
    assert all(0.4 < recall < 0.6 for recall in recalls.values())
    message = "recall@10 vs exact search is page 0.*; expected at least index.target_recall=0.99"
    with pytest.raises(RuntimeError, match=message):
        check_snapshot(half, expected, IndexSettings())


def test_stale_result_fails_at_any_recall(table: SearchTable) -> None:
    """The snapshot still holds a deleted row, an old vector, and the rows of a whole domain."""
    table.build()
    before = table.searcher().snapshot
    assert measured_recall(before, searched_rows(before))["page"] == 1
    table.delete(["s0007"])
    message = r"for page returned deleted or stale rows .* e.g. sample 's0007'"
    with pytest.raises(RuntimeError, match=message):
        measured_recall(before, searched_rows(table.searcher().snapshot))
    table.build()
    before = table.searcher().snapshot
    table.upsert([row(8, unit_vectors(1, seed=9)[0])])
    with pytest.raises(RuntimeError, match="index for page returned .* sample 's0008'"):
        measured_recall(before, searched_rows(table.searcher().snapshot))
    table.delete([f"s{number:04}" for number in range(25, 45)])
    with pytest.raises(RuntimeError, match="index for live returned .* sample 's00"):
        measured_recall(table_without_refresh(before), searched_rows(table.searcher().snapshot))


def table_without_refresh(before: Snapshot) -> Snapshot:
    """The snapshot with its lives alone, so that no page is reported first."""
    domains = before.domains | {Domain.PAGE: DomainIndex([])}
    return dataclasses.replace(before, domains=domains)


def test_row_returned_twice_fails(table: SearchTable) -> None:
    table.build()
    snapshot = table.searcher().snapshot
    pages = snapshot.domains[Domain.PAGE].segments
    doubled = dataclasses.replace(
        snapshot, domains=snapshot.domains | {Domain.PAGE: DomainIndex([*pages, *pages])}
    )
    with pytest.raises(RuntimeError, match="index for page returned deleted or stale rows"):
        measured_recall(doubled, searched_rows(snapshot))


def test_added_rows_count_for_memory_and_latency(table: SearchTable) -> None:
    table.build()
    whole = table.searcher().snapshot
    table.upsert(rows(MIXED, first=100, seed=1))
    snapshot = table.searcher().snapshot
    added = searched_rows(snapshot)
    assert violations(snapshot, added, IndexSettings()) == []
    roomy = IndexSettings(max_memory_gb=1, max_latency_ms=1000)
    assert violations(snapshot, added, roomy) == []
    base_gb = max(part["shards"][0]["memory_gb"] for part in snapshot.base.meta["domains"].values())
    page, live = violations(snapshot, added, IndexSettings(max_memory_gb=base_gb))
    assert page == (
        f"index for page needs 0.000 GB including the delta; limit index.max_memory_gb={base_gb}"
    )
    assert live.startswith("index for live needs 0.000 GB")
    page, live = violations(snapshot, added, IndexSettings(max_latency_ms=1e-9))
    assert page.startswith("index for page takes 0.")
    assert live.endswith("ms per query including the delta; limit index.max_latency_ms=1e-09")
    # A base was chosen by the tuner to meet the limits.
    assert violations(whole, added, IndexSettings(max_latency_ms=1e-9)) == []


def test_domain_emptied_by_deletions_has_no_results(tmp_path: Path) -> None:
    """A graph keeps deleted items behind tombstones, so the domain is still loaded."""
    table = SearchTable(tmp_path, rows([Domain.PAGE] * 700 + [Domain.LIVE] * 700))
    table.build(type="hnsw", target_recall=0.9)
    table.delete([f"s{number:04}" for number in range(700, 1400)])
    snapshot = table.searcher().snapshot
    _, places = snapshot.domains[Domain.LIVE].nearest(unit_vectors(2, seed=5), 3)
    assert (places == -1).all() and snapshot.count(Domain.LIVE) == 0
    assert measured_recall(snapshot, searched_rows(snapshot))["page"] > 0.9


def test_shards_split_the_rows_by_a_checksum(table: SearchTable) -> None:
    folder = table.base_folder(table.build(shards=3))
    bases = [Base(folder, [number]) for number in range(3)]
    names = [
        {name for index in base.domains.values() for part in index.segments
         for name in part.sample_ids.to_pylist()}
        for base in bases
    ]  # fmt: skip
    assert all(names) and sum(map(len, names)) == len(set().union(*names)) == 45
    for base, held in zip(bases, names, strict=True):
        ids = [f"s{number:04}" for number in range(45)]
        assert np.array_equal(base.holds(ids), [name in held for name in ids])
