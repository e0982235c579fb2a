"""Run a search request on a snapshot: rank, fuse, group, and read the columns of the hits."""

from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.query import MatchQuery
from numpy.typing import NDArray

from ampere.records import EMBEDDINGS, UNSEARCHED_COLUMNS, Domain
from ampere.retrieval.explain import Explanation, matched_words
from ampere.retrieval.filters import lance_condition, parse_filter
from ampere.retrieval.fusion import best_of_groups, reciprocal_rank_fusion
from ampere.retrieval.hit_rows import rows_by_id
from ampere.retrieval.index_types import TIE_TOLERANCE
from ampere.retrieval.lexical import MAX_RANKED, TEXT_COLUMN, Ranking, rank_by_words
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.segments import PassingRows, looked_up, stacked_vectors
from ampere.retrieval.snapshot import Snapshot, id_mask
from ampere.text.transcript import Segment

OWN_COLUMNS = frozenset(EMBEDDINGS.schema.names)
# Rows that are ranked first; four times as many where groups or filters need more. A hit's rank
# counts in hybrid mode if it is among them.
DEPTH = 128
DEPTH_PER_HIT = 4
FEW_COMPARED = 20_000  # vectors of 128 dimensions that FAISS compares one by one in 0.45 ms


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A sample that was found.

    Attributes:
        score: what the hits are sorted by: the cosine similarity in vector mode, BM25 in lexical
            mode, the sum of reciprocal ranks in hybrid mode.
        group: value of `group_by`; None without it.
        columns: the catalog's further columns.
        explanation: why it was found, if the request asks for it.
        moment: of a clip with a transcript, what names the product, with times to play it at; see
            `ampere.store.moments`.
    """

    sample_id: str
    product_id: str | None
    domain: Domain
    score: float
    text: str | None
    media_uri: str | None
    group: Any = None
    columns: dict[str, Any] = field(default_factory=dict)
    explanation: Explanation | None = None
    moment: Segment | None = None


@dataclass(frozen=True)
class SearchAnswer:
    """The hits of a request.

    Attributes:
        hits: domain -> hits, best first; with groups, the hits of a group are neighbors.
        facets: column -> value -> number of rows, the most frequent first.
        mode: that the hits are ranked by.
        version: of the search table.
    """

    hits: dict[Domain, list[Hit]]
    facets: dict[str, dict[Any, int]]
    mode: str
    version: int


Group = tuple[str, Any]  # of rows: "value" and that of a column, or "row" and an id


@dataclass(frozen=True)
class Candidate:
    """A ranked row, before its columns are read."""

    row_id: int
    sample_id: str
    score: float
    vector_rank: int | None = None
    lexical_rank: int | None = None
    lexical_score: float | None = None


def search(snapshot: Snapshot, request: SearchRequest, vectors: QueryVectors) -> SearchAnswer:
    """The hits of each domain, facets and explanations; see `rank`."""
    return rank(snapshot, request, vectors).answer()


def rank(snapshot: Snapshot, request: SearchRequest, vectors: QueryVectors) -> "RankedRows":
    """The rows of the hits of each domain, and facets.

    Results are the same in every run: rows of equal score are ordered by sample id.

    Args:
        snapshot: what is searched.
        request: what is asked for.
        vectors: of the request's query.

    Raises:
        ValueError: the filter, a facet or `group_by` names a column that there is not, the filter
            is invalid, or the query's vector has another size.
    """
    if request.group_by:
        check_group_column(request.group_by, snapshot.schema)
    check_size(vectors.query, snapshot.schema)
    facets = count_facets(snapshot, request)
    run = _Run(snapshot, request, vectors, search_condition(snapshot, request))
    return RankedRows(run, {domain: run.best(domain) for domain in request.domains}, facets)


def ranks_from_memory(snapshot: Snapshot, request: SearchRequest) -> bool:
    """Whether to rank the rows of a request reads no table, and compares few vectors."""
    if request.ranking != "vector" or request.sample_id is not None:
        return False
    if request.filter or request.facets or request.group_by:
        return False
    return sum(snapshot.domains[domain].compared for domain in request.domains) <= FEW_COMPARED


def count_facets(snapshot: Snapshot, request: SearchRequest) -> dict[str, dict[Any, int]]:
    """The facets of a request, without its hits: column -> value -> number of rows.

    Raises:
        ValueError: there is no such column, or the filter is invalid.
    """
    if not request.facets:
        return {}
    for name in request.facets:
        check_column(name, snapshot.schema)
    condition = search_condition(snapshot, request)
    return {name: count_values(snapshot, request, condition, name) for name in request.facets}


def search_condition(snapshot: Snapshot, request: SearchRequest) -> str | None:
    """The rows that a request may find, as an SQL condition of Lance; None: all rows."""
    terms = [snapshot.scope] if snapshot.scope else []
    if request.filter:
        columns = [f for f in snapshot.schema if f.name not in UNSEARCHED_COLUMNS]
        terms.append(lance_condition(parse_filter(request.filter, pa.schema(columns))))
    return " AND ".join(f"({term})" for term in terms) or None


def check_size(query: NDArray[np.float32] | None, schema: pa.Schema) -> None:
    """Raise ValueError if the vector of a query has another size than those of the table."""
    size = schema.field("vector").type.list_size
    if query is not None and len(query) != size:
        raise ValueError(
            f"the vector of the query has {len(query)} numbers; expected {size}, as the vectors "
            "of this index"
        )


def check_column(name: str, schema: pa.Schema) -> None:
    """Raise ValueError if rows cannot be grouped or counted by a column."""
    names = [n for n in schema.names if n not in UNSEARCHED_COLUMNS]
    if name not in names:
        raise ValueError(f"no column {name!r} to group or count by; there are {', '.join(names)}")


def check_group_column(name: str, schema: pa.Schema) -> None:
    """Raise ValueError if rows cannot be grouped by a column."""
    check_column(name, schema)
    if pa.types.is_list(schema.field(name).type):
        raise ValueError(f"cannot group by {name}: a row has a list of values; count it by facets")


def stored_vector(dataset: lance.LanceDataset, sample_id: str) -> tuple[int, NDArray[np.float32]]:
    """Row id and vector of a stored sample.

    Raises:
        ValueError: there is no such sample.
    """
    rows = dataset.to_table(
        columns=["vector"], filter=pc.field("sample_id") == sample_id, with_row_id=True
    )
    if not rows.num_rows:
        raise ValueError(f"no sample {sample_id!r} in the search table")
    return rows["_rowid"][0].as_py(), stacked_vectors(rows["vector"])[0]


def count_values(
    snapshot: Snapshot, request: SearchRequest, condition: str | None, column: str
) -> dict[Any, int]:
    """Rows by the value of a column, of those that pass the filter and hold one of the words.

    A row with a list counts for each of its values.
    """
    domains = ", ".join(f"'{domain}'" for domain in request.domains)
    terms = [f"domain IN ({domains})", *([condition] if condition else [])]
    words = request.words
    rows = snapshot.dataset.scanner(
        columns=[column, *(["_score"] if words else [])],
        filter=" AND ".join(terms),
        prefilter=True,
        full_text_query=MatchQuery(words, TEXT_COLUMN) if words else None,
    ).to_table()
    values = rows[column].combine_chunks()
    if pa.types.is_list(values.type):
        values = values.flatten()
    counts = sorted(
        (
            (count["values"], count["counts"])
            for count in values.value_counts().to_pylist()
            if count["values"] is not None
        ),
        key=lambda count: (-count[1], str(count[0])),
    )
    return dict(counts)


class RankedRows:
    """The rows that were found for a request, before their columns are read."""

    def __init__(
        self,
        run: "_Run",
        groups: dict[Domain, list[tuple[Group, list[Candidate]]]],
        facets: dict[str, dict[Any, int]],
    ) -> None:
        self._run, self._facets = run, facets
        self.rows = {
            domain: [candidate for _, of_group in of_domain for candidate in of_group]
            for domain, of_domain in groups.items()
        }
        self._group_of = {
            candidate.row_id: value
            for of_domain in groups.values()
            for (kind, value), of_group in of_domain
            if kind == "value"
            for candidate in of_group
        }

    @property
    def is_in_memory(self) -> bool:
        """Whether `answer` reads no table."""
        ids = [candidate.row_id for of_domain in self.rows.values() for candidate in of_domain]
        return not self._run.request.explain and self._run.snapshot.rows.are_in_memory(ids)

    def answer(self) -> SearchAnswer:
        """The hits, with the columns of their rows."""
        run = self._run
        return SearchAnswer(
            run.hits(self.rows, self._group_of),
            self._facets,
            run.request.ranking,
            run.snapshot.version,
        )


class _Run:
    """One request on one snapshot."""

    def __init__(
        self,
        snapshot: Snapshot,
        request: SearchRequest,
        vectors: QueryVectors,
        condition: str | None,
    ) -> None:
        self.snapshot, self.request, self.vectors = snapshot, request, vectors
        self.condition = condition
        self.passing = None
        if request.filter and condition:
            self.passing = snapshot.passing_rows(condition)
        self.wanted = request.offset + request.k
        self.itself = (
            stored_vector(snapshot.dataset, request.sample_id)[0]
            if request.sample_id is not None
            else None
        )
        self.rankings: dict[int, Ranking] = {}  # depth -> ranking by words over all domains

    def best(self, domain: Domain) -> list[tuple[Group, list[Candidate]]]:
        """The groups, or single rows, from `offset` on, each with its candidates."""
        depth = self._first_depth()
        while True:
            candidates, is_complete = self._ranked(domain, depth)
            groups = self._grouped(candidates)
            is_enough = len(groups) >= self.wanted and not self._cuts_tie(candidates)
            if is_complete or is_enough:
                chosen = list(groups.items())[self.request.offset : self.wanted]
                if self.request.group_size > 1 and self.request.ranking == "vector":
                    chosen = [(key, self._filled(domain, key, few)) for key, few in chosen]
                return chosen
            depth *= 4

    def _cuts_tie(self, candidates: list[Candidate]) -> bool:
        """Whether rows that were not looked at may tie with the last one that is wanted."""
        is_plain = self.request.ranking == "vector" and not self.request.group_by
        if not is_plain or len(candidates) > MAX_RANKED:
            return False
        return candidates[self.wanted - 1].score - candidates[-1].score <= TIE_TOLERANCE

    def _first_depth(self) -> int:
        """Rows of each ranking to look at first."""
        if self.request.ranking == "vector" and not self.request.group_by:
            return self.wanted + 2  # the sample itself may be among them, and one that is no tie
        depth = DEPTH
        while depth < DEPTH_PER_HIT * self.wanted * self.request.group_size:
            depth *= 4
        return depth

    def _filled(self, domain: Domain, key: Group, candidates: list[Candidate]) -> list[Candidate]:
        """The best rows of a group, of which too few may be among those ranked so far."""
        kind, value = key
        size = self.request.group_size
        if kind == "row" or len(candidates) == size:
            return candidates
        rows = self.snapshot.dataset.to_table(
            columns=[], filter=pc.field(self.request.group_by) == value, with_row_id=True
        )
        of_group = id_mask(rows["_rowid"].to_numpy())
        if self.passing is not None:
            of_group &= looked_up(self.passing.mask, np.arange(len(of_group), dtype=np.uint64))
        nearest, _ = self._nearest(domain, size + 1, PassingRows(of_group))
        known = {candidate.row_id: candidate for candidate in candidates}
        return [
            known.get(row) or Candidate(row, name, score) for row, (score, name) in nearest.items()
        ][:size]

    def _grouped(self, candidates: list[Candidate]) -> dict[Group, list[Candidate]]:
        if not self.request.group_by:
            return {("row", candidate.row_id): [candidate] for candidate in candidates}
        column = self.request.group_by
        row_ids = np.array([candidate.row_id for candidate in candidates], np.uint64)
        values = rows_by_id(self.snapshot.dataset, row_ids, [column])[column].to_pylist()
        of_row = dict(zip(row_ids.tolist(), values, strict=True))

        def group_of(candidate: Candidate) -> Group:
            value = of_row[candidate.row_id]
            return ("row", candidate.row_id) if value is None else ("value", value)

        return best_of_groups(candidates, group_of, self.request.group_size)

    def _ranked(self, domain: Domain, depth: int) -> tuple[list[Candidate], bool]:
        """Candidates of a domain, best first, and whether there are no others."""
        mode = self.request.ranking
        by_vector: dict[int, tuple[float, str]] = {}
        by_words: dict[int, tuple[float, str]] = {}
        vector_complete = words_complete = True
        if mode != "lexical":
            by_vector, vector_complete = self._by_vector(domain, depth)
        if mode != "vector":
            by_words, words_complete = self._by_words(domain, depth)
        vector_ranks = {row: rank for rank, row in enumerate(by_vector, start=1)}
        lexical_ranks = {row: rank for rank, row in enumerate(by_words, start=1)}
        if mode == "hybrid":
            scores = reciprocal_rank_fusion(
                [vector_ranks, lexical_ranks], self.request.fusion_weights
            )
        else:
            of_mode = by_vector if mode == "vector" else by_words
            scores = {row: score for row, (score, _) in of_mode.items()}
        candidates = [
            Candidate(
                row,
                (by_vector.get(row) or by_words[row])[1],
                score,
                vector_ranks.get(row),
                lexical_ranks.get(row),
                by_words[row][0] if row in by_words else None,
            )
            for row, score in scores.items()
        ]
        if mode == "hybrid":
            candidates.sort(key=lambda candidate: (-candidate.score, candidate.sample_id))
        return candidates, vector_complete and words_complete

    def _by_vector(self, domain: Domain, depth: int) -> tuple[dict[int, tuple[float, str]], bool]:
        """Row id -> similarity and sample id, best first; and whether there are no others."""
        return self._nearest(domain, depth, self.passing)

    def _nearest(
        self, domain: Domain, depth: int, passing: PassingRows | None
    ) -> tuple[dict[int, tuple[float, str]], bool]:
        index = self.snapshot.domains[domain]
        assert self.vectors.query is not None, "the mode needs a vector"
        scores, places = index.nearest(self.vectors.query[None], depth, passing)
        found = places[0] >= 0
        scores, places = scores[0][found], places[0][found]
        is_complete = len(places) < depth
        if self.request.min_similarity is not None:
            near = scores >= self.request.min_similarity
            is_complete = is_complete or not near.all()
            scores, places = scores[near], places[near]
        rows = zip(
            index.row_ids(places).tolist(), scores.tolist(), index.sample_ids(places), strict=True
        )
        return {row: (score, name) for row, score, name in rows if row != self.itself}, is_complete

    def _by_words(self, domain: Domain, depth: int) -> tuple[dict[int, tuple[float, str]], bool]:
        """Row id -> BM25 and sample id, best first; and whether there are no others."""
        if depth not in self.rankings:
            self.rankings[depth] = self._rank_by_words(depth, self.condition)
        ranking = self.rankings[depth]
        rows = _rows_of(ranking, domain)
        if not ranking.is_complete and len(rows) < depth:
            # Rows of other domains are in the way: rank those of this domain alone.
            condition = f"domain = '{domain}'"
            if self.condition:
                condition += f" AND {self.condition}"
            ranking = self._rank_by_words(depth, condition)
            rows = _rows_of(ranking, domain)
        is_complete = ranking.is_complete and len(rows) <= depth
        return self._without_itself(dict(islice(rows.items(), depth))), is_complete

    def _rank_by_words(self, depth: int, condition: str | None) -> Ranking:
        assert self.request.words is not None, "the mode needs words"
        snapshot = self.snapshot
        return rank_by_words(
            snapshot.dataset, self.request.words, depth, condition, snapshot.names_of
        )

    def _without_itself(self, rows: dict[int, tuple[float, str]]) -> dict[int, tuple[float, str]]:
        return {row: value for row, value in rows.items() if row != self.itself}

    def hits(
        self, candidates: dict[Domain, list[Candidate]], group_of: dict[int, Any]
    ) -> dict[Domain, list[Hit]]:
        """Read the columns of all candidates and make hits of them.

        Args:
            candidates: of each domain, in the order of the hits.
            group_of: row id -> value of `group_by`.
        """
        chosen = [
            (domain, candidate)
            for domain, of_domain in candidates.items()
            for candidate in of_domain
        ]
        row_ids = [candidate.row_id for _, candidate in chosen]
        values = self.snapshot.rows.of(row_ids)
        stored = None
        if self.request.explain and chosen:
            rows = rows_by_id(self.snapshot.dataset, np.array(row_ids, np.uint64), ["vector"])
            stored = stacked_vectors(rows["vector"])
        hits: dict[Domain, list[Hit]] = {domain: [] for domain in candidates}
        for at, ((domain, candidate), row) in enumerate(zip(chosen, values, strict=True)):
            hits[domain].append(
                make_hit(
                    {"sample_id": candidate.sample_id, "domain": domain} | row,
                    candidate.score,
                    group_of.get(candidate.row_id),
                    None
                    if stored is None
                    else explanation(self.request, self.vectors, candidate, row, stored[at]),
                )
            )
        return hits


def _rows_of(ranking: Ranking, domain: Domain) -> dict[int, tuple[float, str]]:
    return {
        int(row): (float(score), name)
        for row, score, name, of in zip(
            ranking.row_ids, ranking.scores, ranking.sample_ids, ranking.domains, strict=True
        )
        if of == domain
    }


class Ranks(Protocol):
    """Where the rankings have a row; of the candidates of all engines."""

    @property
    def vector_rank(self) -> int | None:
        """From 1; None: not among the ranked rows."""

    @property
    def lexical_rank(self) -> int | None:
        """From 1; None: not among the ranked rows."""

    @property
    def lexical_score(self) -> float | None:
        """BM25."""


def explanation(
    request: SearchRequest,
    vectors: QueryVectors,
    candidate: Ranks,
    row: dict[str, Any],
    stored: NDArray[np.float32],
) -> Explanation:
    """Why a row was found.

    Args:
        request: that was asked for.
        vectors: of its query.
        candidate: the row with its ranks.
        row: its columns.
        stored: its vector, float32 [D].
    """

    def similarity(vector: NDArray[np.float32] | None) -> float | None:
        return None if vector is None else float(vector @ stored)

    return Explanation(
        similarity=similarity(vectors.query),
        vector_rank=candidate.vector_rank,
        lexical_score=candidate.lexical_score,
        lexical_rank=candidate.lexical_rank,
        file_similarity=similarity(vectors.file),
        words_similarity=similarity(vectors.words),
        matched_words=matched_words(request.words, row["text"]),
    )


def make_hit(row: dict[str, Any], score: float, group: Any, explanation: Explanation | None) -> Hit:
    """A hit from the columns of its row."""
    return Hit(
        sample_id=row["sample_id"],
        product_id=row["product_id"],
        domain=Domain(row["domain"]),
        score=score,
        text=row["text"],
        media_uri=row["media_uri"],
        group=group,
        columns={n: v for n, v in row.items() if n not in OWN_COLUMNS},
        explanation=explanation,
    )
