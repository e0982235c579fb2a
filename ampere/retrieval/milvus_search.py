"""Run a search request on a collection of Milvus: rank, fuse, group, read the columns of the hits.

Milvus filters and ranks; what it does otherwise than `ampere.retrieval.search`, or differently in
milvus-lite and on a server, is done here: ties, fusion, and groups. Its own groups are those of the
first rows alone, and all rows without a value are one group.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ampere.records import INTERNAL_COLUMNS, UNSEARCHED_COLUMNS, Domain
from ampere.retrieval.engine import Unsupported
from ampere.retrieval.filters import milvus_condition, parse_filter
from ampere.retrieval.fusion import best_of_groups, reciprocal_rank_fusion
from ampere.retrieval.index_types import TIE_TOLERANCE
from ampere.retrieval.milvus_collections import (
    BM25_FIELD,
    ROWS_PER_CALL,
    Collection,
    in_domain,
    literal,
    search_options,
    version_of,
    with_ids,
)
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import (
    DEPTH,
    DEPTH_PER_HIT,
    Hit,
    SearchAnswer,
    check_group_column,
    check_size,
    explanation,
    make_hit,
)
from ampere.retrieval.writer import KEY

if TYPE_CHECKING:
    from pymilvus import MilvusClient

MAX_DEPTH = 16_384  # rows that a server returns at once
TIE_DIGITS = 6  # scores that are equal after rounding are tied, and ordered by id
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Candidate:
    """A ranked row, before its columns are read."""

    sample_id: str
    score: float
    group: Any = None
    vector_rank: int | None = None
    lexical_rank: int | None = None
    lexical_score: float | None = None


Ranked = dict[str, tuple[float, Any]]  # sample id -> score and group, best first
GroupKey = tuple[str, Any]  # "value" and the value of a group, or "row" and a sample id


class MilvusSearch:
    """One request on one collection.

    Args:
        client: of the server or file.
        collection: that is searched.
        request: what is asked for.
        vectors: of the request's query.

    Raises:
        ValueError: the filter or `group_by` names a column that there is not, the filter is
            invalid, or the query's vector has another size.
        Unsupported: the request asks for what Milvus lacks.
    """

    def __init__(
        self,
        client: "MilvusClient",
        collection: Collection,
        request: SearchRequest,
        vectors: QueryVectors,
    ) -> None:
        self.client, self.collection = client, collection
        self.request, self.vectors = request, vectors
        if request.facets:
            raise Unsupported("the engine milvus has no facets; the engine faiss has them")
        if request.group_by:
            check_group_column(request.group_by, collection.schema)
        check_size(vectors.query, collection.schema)
        self.conditions = conditions_of(request, collection.schema)
        self.wanted = request.offset + request.k

    def answer(self) -> SearchAnswer:
        """The hits of each domain."""
        chosen = {domain: self._best(domain) for domain in self.request.domains}
        hits = self._hits(chosen)
        return SearchAnswer(hits, {}, self.request.ranking, version_of(self.collection.name))

    def _best(self, domain: Domain) -> list[Candidate]:
        """The rows to return, group by group, from `offset` on.

        In hybrid mode the ranking becomes longer until it has enough groups. In the other modes
        the groups found so far are left out of each further ranking.
        """
        size = self.request.group_size
        depth = DEPTH
        while depth < DEPTH_PER_HIT * self.wanted * size:
            depth *= 4
        groups: dict[GroupKey, list[Candidate]] = {}
        is_hybrid = self.request.ranking == "hybrid"
        while True:
            depth = min(depth, MAX_DEPTH)
            without = "" if is_hybrid else self._without(groups)
            candidates, is_complete = self._ranked(domain, depth, without)
            found = best_of_groups(candidates, self._group_of, size)
            if is_hybrid:
                groups = found
            else:
                groups |= {key: few for key, few in found.items() if key not in groups}
            if is_complete or len(groups) >= self.wanted or (is_hybrid and depth == MAX_DEPTH):
                break
            depth *= 4
        best = list(groups.items())[self.request.offset : self.wanted]
        if size > 1 and not is_hybrid:
            best = [(key, self._filled(domain, key, few)) for key, few in best]
        return [candidate for _, of_group in best for candidate in of_group]

    def _group_of(self, candidate: Candidate) -> GroupKey:
        if candidate.group is None:
            return "row", candidate.sample_id
        return "value", candidate.group

    def _without(self, groups: Iterable[GroupKey]) -> str:
        """The condition that leaves out the rows of some groups; empty: it leaves out none."""
        column = self.request.group_by
        values = [literal(value) for kind, value in groups if kind == "value"]
        if not values:
            return ""
        return f"({column} is null or {column} not in [{', '.join(values)}])"

    def _filled(
        self, domain: Domain, key: GroupKey, candidates: list[Candidate]
    ) -> list[Candidate]:
        """The best rows of a group, of which too few may be among those ranked so far."""
        kind, value = key
        size = self.request.group_size
        if kind == "row" or len(candidates) == size:
            return candidates
        return self._ranked(domain, size, f"{self.request.group_by} == {literal(value)}")[0][:size]

    def _ranked(self, domain: Domain, depth: int, condition: str) -> tuple[list[Candidate], bool]:
        """Candidates of a domain, best first, and whether there are no others."""
        mode = self.request.ranking
        by_vector: Ranked = {}
        by_words: Ranked = {}
        vector_complete = words_complete = True
        if mode != "lexical":
            assert self.vectors.query is not None, "the mode needs a vector"
            by_vector, vector_complete = self._nearest(
                domain, "vector", self.vectors.query, depth, condition
            )
            if self.request.min_similarity is not None:
                least = self.request.min_similarity
                near = {name: row for name, row in by_vector.items() if row[0] >= least}
                vector_complete = vector_complete or len(near) < len(by_vector)
                by_vector = near
        if mode != "vector":
            by_words, words_complete = self._nearest(
                domain, BM25_FIELD, self.request.words, depth, condition
            )
        vector_ranks = {name: rank for rank, name in enumerate(by_vector, start=1)}
        lexical_ranks = {name: rank for rank, name in enumerate(by_words, start=1)}
        if mode == "hybrid":
            scores = reciprocal_rank_fusion(
                [vector_ranks, lexical_ranks], self.request.fusion_weights
            )
        else:
            scores = {name: score for name, (score, _) in (by_vector or by_words).items()}
        candidates = [
            Candidate(
                name,
                score,
                (by_vector.get(name) or by_words[name])[1],
                vector_ranks.get(name),
                lexical_ranks.get(name),
                by_words[name][0] if name in by_words else None,
            )
            for name, score in scores.items()
        ]
        if mode == "hybrid":
            candidates.sort(key=lambda candidate: (-candidate.score, candidate.sample_id))
        return candidates, vector_complete and words_complete

    def _nearest(
        self, domain: Domain, field: str, query: Any, depth: int, condition: str
    ) -> tuple[Ranked, bool]:
        """Rows by similarity or by BM25, best first, ties by id; and whether there are no others.

        Args:
            domain: of the rows.
            field: with the vectors, or with the words.
            query: float32 [D], or words.
            depth: rows to return.
            condition: beside those of the request; empty: none.
        """
        terms = [in_domain(domain), *self.conditions, *filter(None, [condition])]
        fetched = min(depth + 1, MAX_DEPTH)
        while True:
            (found,) = self.client.search(
                self.collection.name,
                data=[query],
                anns_field=field,
                filter=" and ".join(terms),
                limit=fetched,
                search_params=search_options(field, fetched, self.collection.index_type),
                output_fields=[self.request.group_by or KEY],
            )
            is_complete = len(found) < fetched
            # milvus-lite gives BM25 a minus sign, servers do not.
            scores = [
                hit["distance"] if field == "vector" else abs(hit["distance"]) for hit in found
            ]
            ends_tied = not is_complete and scores[depth - 1] - scores[-1] < TIE_TOLERANCE
            if not ends_tied or fetched == MAX_DEPTH:
                break
            fetched = min(4 * fetched, MAX_DEPTH)
        rows = sorted(
            (
                (score, hit[KEY], hit["entity"].get(self.request.group_by))
                for score, hit in zip(scores, found, strict=True)
            ),
            key=lambda row: (-round(row[0], TIE_DIGITS), row[1]),
        )
        if not is_complete:
            rows = rows[:depth]
        return {name: (score, group) for score, name, group in rows}, is_complete

    def _hits(self, chosen: dict[Domain, list[Candidate]]) -> dict[Domain, list[Hit]]:
        """Read the columns of all candidates; a row that was deleted meanwhile is no hit."""
        names = [name for name in self.collection.schema.names if name not in INTERNAL_COLUMNS]
        columns = [*names, "vector"] if self.request.explain else names
        ids = [candidate.sample_id for of_domain in chosen.values() for candidate in of_domain]
        rows = {}
        for start in range(0, len(ids), ROWS_PER_CALL):
            wanted = with_ids(ids[start : start + ROWS_PER_CALL])
            for row in self.client.query(
                self.collection.name, filter=wanted, output_fields=columns
            ):
                rows[row[KEY]] = as_stored(row, self.collection.schema)
        return {
            domain: [
                self._hit(candidate, rows[candidate.sample_id])
                for candidate in of_domain
                if candidate.sample_id in rows
            ]
            for domain, of_domain in chosen.items()
        }

    def _hit(self, candidate: Candidate, row: dict[str, Any]) -> Hit:
        vector = row.pop("vector", None)
        return make_hit(
            row,
            candidate.score,
            row[self.request.group_by] if self.request.group_by else None,
            None
            if vector is None
            else explanation(
                self.request, self.vectors, candidate, row, np.array(vector, np.float32)
            ),
        )


def conditions_of(request: SearchRequest, schema: pa.Schema) -> list[str]:
    """The conditions of a request on the rows, as expressions of Milvus.

    Raises:
        ValueError: the filter is invalid.
        Unsupported: it needs what Milvus lacks.
    """
    conditions = []
    if request.sample_id is not None:
        conditions.append(f"{KEY} != {literal(request.sample_id)}")
    if request.filter:
        columns = [field for field in schema if field.name not in UNSEARCHED_COLUMNS]
        parsed = parse_filter(request.filter, pa.schema(columns))
        try:
            conditions.append(f"({milvus_condition(parsed)})")
        except ValueError as error:
            raise Unsupported(f"{error}; the engine faiss has it") from error
    return conditions


def as_stored(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """A row of Milvus with the values of the search table: times, lists and vectors."""
    values = dict(row)
    for name, value in row.items():
        column_type = schema.field(name).type
        if value is None:
            continue
        if pa.types.is_timestamp(column_type):
            values[name] = _EPOCH + timedelta(microseconds=value)
        elif pa.types.is_list(column_type):
            values[name] = list(value)
    return values
