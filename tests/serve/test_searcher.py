"""Searchers with one shard each give, together, the answers of one with the whole index."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ampere.records import Domain
from ampere.store.workspace import Workspace
from serve.searcher import SearcherDeployment, best_of
from tests.helpers.search_tables import SearchTable, row, unit_vectors

MIXED = [Domain.PAGE] * 25 + [Domain.LIVE] * 12 + [Domain.SHORT]


def table(folder: Path, shards: int, *, ties: bool) -> SearchTable:
    """Rows of all domains, of which the last ten came after the base."""
    folder.mkdir()
    vectors = unit_vectors(6 if ties else len(MIXED), seed=1)
    rows = [
        row(
            number,
            vectors[number % len(vectors)],
            domain=str(domain),
            text="红色跑鞋" if number == 3 else "",
        )
        for number, domain in enumerate(MIXED)
    ]
    made = SearchTable(folder, rows[:-10])
    made.build(type="flat", shards=shards)
    made.upsert(rows[-10:])
    return made


def searchers(
    folder: Path, shards: int, monkeypatch: pytest.MonkeyPatch, *, ties: bool
) -> list[SearcherDeployment]:
    made = table(folder, shards, ties=ties)

    def opened(_: object, __: str, of: list[int]) -> Any:
        return made.searcher(of)

    empty = Workspace.create(folder / "w")
    monkeypatch.setattr("serve.searcher.Workspace.open", lambda uri: empty)
    monkeypatch.setattr("serve.searcher.open_searcher", opened)
    cls = SearcherDeployment.func_or_class
    return [cls("w", "m@1", shard, shards) for shard in range(shards)]


@pytest.mark.parametrize("ties", [False, True])
def test_merged_hits_of_shards_equal_those_of_one_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ties: bool
) -> None:
    (whole,) = searchers(tmp_path / "one", 1, monkeypatch, ties=ties)
    parts = searchers(tmp_path / "three", 3, monkeypatch, ties=ties)
    for vector in unit_vectors(9, seed=2).tolist():
        for k in (1, 7, 40):
            expected = whole.search(vector, None, list(Domain), k)
            merged = best_of([part.search(vector, None, list(Domain), k) for part in parts], k)
            assert merged.keys() == expected.keys()
            for domain, hits in expected.items():
                ids = [hit.sample_id for hit in merged[domain]]
                # Of more ties than fit into the top 7, shards may choose others.
                assert ids == [hit.sample_id for hit in hits] or (ties and k == 7)
                np.testing.assert_allclose(
                    [hit.score for hit in merged[domain]], [hit.score for hit in hits], atol=1e-6
                )


def test_number_of_shards_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searchers(tmp_path / "two", 2, monkeypatch, ties=False)
    with pytest.raises(ValueError, match="shards changed: found 2, the endpoint started with 3"):
        SearcherDeployment.func_or_class("w", "m@1", 0, 3)


def test_words_rank_alone_where_the_model_embeds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (searcher,) = searchers(tmp_path / "one", 1, monkeypatch, ties=False)
    vector = unit_vectors(1, seed=2)[0].tolist()
    by_words = searcher.search(None, "红色 跑鞋", list(Domain), 5)
    assert [hit.sample_id for hit in by_words[Domain.PAGE]] == ["s0003"]
    by_both = searcher.search(vector, "红色 跑鞋", list(Domain), 5)
    assert by_both[Domain.PAGE][0].sample_id == "s0003" and len(by_both[Domain.PAGE]) == 5
