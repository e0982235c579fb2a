"""Products with titles, prices and vectors for `benchmarks/search.py`."""

import random
from dataclasses import dataclass

import faiss
import numpy as np
import pyarrow as pa
from index_data import TUNING_QUERIES, draw_vectors, table_of
from numpy.typing import NDArray

from ampere.records import Domain
from ampere.retrieval.index_types import TIE_TOLERANCE
from ampere.synthetic.products import BRAND_CHARACTERS, load_categories

K, BATCH = 10, 256
QUERIES = 512  # that no index was built or tuned with
VOCABULARY, WORDS_PER_TITLE, WORDS_PER_QUERY = 20_000, 8, 3
MAX_PRICE = 1000.0
# Share of the rows that pass -> filter. Prices are random, ranks follow the vectors.
FILTERS = {
    "none": "",
    "50 %": "price < 500",
    "5 %": "price < 50",
    "0.1 %": "price < 1",
    "50 % alike": "likeness < 0.5",
    "20 % alike": "likeness < 0.2",
}


@dataclass(frozen=True, kw_only=True)
class SearchData:
    """Rows of a search table, and queries.

    Attributes:
        pages: float32 [N, D], unit vectors.
        table: the pages, and `TUNING_QUERIES` shorts to tune and gate their index with.
        prices: float64 [N], random, below `MAX_PRICE`.
        likeness: float64 [N], 0 to 1: rank of the similarity to a fixed vector. Rows that pass a
            filter by it lie together, as those of a category do, and may be far from a query.
        queries: float32 [QUERIES, D].
        words: as many texts, some words of a title each.
    """

    pages: NDArray[np.float32]
    table: pa.Table
    prices: NDArray[np.float64]
    likeness: NDArray[np.float64]
    queries: NDArray[np.float32]
    words: list[str]

    def passing(self, name: str) -> NDArray[np.bool_]:
        """Pages that pass a filter of `FILTERS`, bool [N]."""
        condition = FILTERS[name]
        if not condition:
            return np.ones(len(self.pages), bool)
        column, _, limit = condition.split()
        return (self.prices if column == "price" else self.likeness) < float(limit)

    def exact(self, name: str, queries: int) -> NDArray[np.float32]:
        """Similarity of the K-th nearest page that passes a filter, [queries]; -inf: fewer do."""
        pages = np.flatnonzero(self.passing(name))
        worst = []
        for start in range(0, queries, BATCH):
            batch = self.queries[start : min(start + BATCH, queries)]
            index = faiss.IndexFlatIP(self.pages.shape[1])
            for rows in np.array_split(pages, 1 + len(pages) // 200_000):
                index.add(self.pages[rows])
            worst.append(index.search(batch, K)[0][:, -1])
        return np.concatenate(worst)

    def recall(self, found: list[list[int]], name: str, exact: NDArray[np.float32]) -> float:
        """Recall@10 of the pages found for the first queries; ties count as correct.

        Args:
            found: page numbers of each query.
            name: of the filter; a page that does not pass counts as wrong.
            exact: as of `exact`.
        """
        passing, correct = self.passing(name), 0
        for query, pages, least in zip(self.queries, found, exact, strict=False):
            similarity = self.pages[pages[:K]] @ query
            correct += int((passing[pages[:K]] & (similarity >= least - TIE_TOLERANCE)).sum())
        return correct / (min(K, passing.sum()) * len(found))


def draw_search_data(rows: int, dim: int) -> SearchData:
    """Return random data, the same in every run."""
    vectors = draw_vectors(rows + TUNING_QUERIES + QUERIES, rows // 50, dim)
    pages, tuning, queries = np.split(vectors, np.cumsum([rows, TUNING_QUERIES]))
    rng = np.random.default_rng(1)
    prices = np.round(rng.uniform(0, MAX_PRICE, rows), 4)
    direction = pages[0]
    likeness = np.empty(rows)
    likeness[np.argsort(pages @ direction, kind="stable")] = np.arange(rows) / rows
    titles = draw_titles(rows + QUERIES)
    words = [draw_query(title, seed) for seed, title in enumerate(titles[rows:])]
    table = table_of(pages, Domain.PAGE)
    table = table.set_column(table.column_names.index("text"), "text", pa.array(titles[:rows]))
    table = table.append_column("price", pa.array(prices))
    table = table.append_column("likeness", pa.array(likeness))
    shorts = table_of(tuning, Domain.SHORT)
    return SearchData(
        pages=pages,
        table=pa.concat_tables([table, shorts], promote_options="default"),
        prices=prices,
        likeness=likeness,
        queries=np.ascontiguousarray(queries),
        words=words,
    )


def vocabulary() -> list[str]:
    """Words of titles, the most frequent first: of the demo's goods, then invented ones."""
    rng = random.Random(0)
    words = [
        word
        for category in load_categories()
        for word in (*category.nouns, *category.kinds, *category.functions)
    ]
    words = list(dict.fromkeys(words))
    rng.shuffle(words)
    known = set(words)
    while len(words) < VOCABULARY:
        if rng.random() < 0.25:
            word = "".join(rng.choices("abcdefghiklmnoprstuvz", k=rng.randint(4, 8))).title()
        else:
            word = "".join(rng.sample(BRAND_CHARACTERS, 2))
        if word not in known:
            known.add(word)
            words.append(word)
    return words


def draw_titles(count: int) -> list[str]:
    """Titles of words whose frequency falls with their rank (Zipf's law)."""
    words = np.array(vocabulary(), object)
    shares = 1 / np.arange(1, len(words) + 1)
    rng = np.random.default_rng(2)
    drawn = rng.choice(len(words), (count, WORDS_PER_TITLE), p=shares / shares.sum())
    return [" ".join(title) for title in words[drawn].tolist()]


def draw_query(title: str, seed: int) -> str:
    """Some words of a title."""
    return " ".join(random.Random(seed).sample(title.split(), WORDS_PER_QUERY))
