"""Searchers with one shard each give, together, the answers of one with the whole index."""

import json
from pathlib import Path

import numpy as np
import pytest
from ampere.retrieval.index import stacked_vectors
from ampere.retrieval.index_build import write_base

from ampere.config.index import IndexSettings
from ampere.records import Domain
from ampere.store.workspace import Workspace
from serve.searcher import SearcherDeployment, best_of
from tests.helpers.index_rows import alike, rows

MIXED = [Domain.PAGE] * 25 + [Domain.LIVE] * 12 + [Domain.SHORT]


def searchers(workspace: Workspace, model: str, shards: int) -> list[SearcherDeployment]:
    cls = SearcherDeployment.func_or_class
    return [cls(workspace.uri, model, f"{model}@1", shard, shards) for shard in range(shards)]


@pytest.mark.parametrize("ties", [False, True])
def test_merged_hits_of_shards_equal_those_of_one_index(workspace: Workspace, ties: bool) -> None:
    table = alike(rows(MIXED)) if ties else rows(MIXED)
    for model, shards in (("one", 1), ("three", 3)):
        folder = Path(workspace.uri) / "indexes" / model
        (folder / "v000001").mkdir(parents=True)
        settings = IndexSettings(model=model, type="flat", shards=shards)
        write_base(folder / "v000001", table, settings, {"model": f"{model}@1"})
        (folder / "current.json").write_text(json.dumps({"version": "v000001"}))
    (whole,), parts = searchers(workspace, "one", 1), searchers(workspace, "three", 3)
    for vector in stacked_vectors(rows(MIXED, seed=1)["vector"])[:9].tolist():
        for k in (1, 7, 40):
            expected = whole.search(vector, list(Domain), k)
            merged = best_of([part.search(vector, list(Domain), k) for part in parts], k)
            assert merged.keys() == expected.keys()
            for domain, hits in expected.items():
                ids = [hit.sample_id for hit in merged[domain]]
                # Of more ties than fit into the top 7, shards may choose others.
                assert ids == [hit.sample_id for hit in hits] or (ties and k == 7)
                np.testing.assert_allclose(
                    [hit.score for hit in merged[domain]], [hit.score for hit in hits], atol=1e-6
                )
