"""What a search asks for: one type for the library, the command line and the endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from ampere.records import Domain
from ampere.text.normalize import readable_text

Mode = Literal["vector", "lexical", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)
# What a query with words is ranked by where the request does not say so: see the demo's results in
# docs/guides/search.md.
MODE_WITH_WORDS: Mode = "hybrid"

MAX_K = 1000
MAX_RESULTS = 10_000  # offset + k, times the size of a group
PARTS = ("file", "words", "sample", "vector")


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A query, what may be found, and how the hits are ranked and returned.

    The query has one or several of: a file (or frames), words, a stored sample, a vector. A file
    and words together are embedded as one sample, as a page's picture and title are. Other
    combinations, and all with `weights`, are weighted sums of the vectors of the parts.

    Attributes:
        media: a picture or video, as bytes or a local path.
        frames: pictures in the order of time, in place of `media`.
        text: typed words, the title of the picture, or the product summary of the video's speech.
        sample_id: a stored sample to find similar ones of; it is no hit itself.
        vector: of the model, of any length above 0.
        weights: weight of each part of the query: `file`, `words`, `sample`, `vector`. Empty: 1.
        domain: where the query comes from. None: a picture or words are a page, a video a short.
        domains: domains to search.
        k: hits per domain, or groups with `group_by`; 1 to `MAX_K`.
        offset: best hits per domain, or groups, that are skipped.
        filter: an SQL condition on the columns of the search table; see
            `ampere.retrieval.filters`.
        group_by: column whose values are groups, such as product_id; rows without a value are
            groups of their own. Empty: no groups.
        group_size: hits per group.
        min_similarity: least cosine similarity of a hit of vector search; None: any. Hits of
            lexical search are not affected.
        mode: ranking by vectors, by words, or by both (reciprocal rank fusion). None: by vectors,
            and with words alone as `MODE_WITH_WORDS` says.
        fusion_weights: weight of the vector and of the lexical ranking in hybrid mode.
        explain: add to each hit why it was found.
        facets: columns whose values are counted over all rows that pass the filter and hold one of
            the words.

    Raises:
        ValueError: the query is empty, or a field is out of range; the message says which.
    """

    media: bytes | Path | None = None
    frames: tuple[bytes, ...] = ()
    text: str | None = None
    sample_id: str | None = None
    vector: tuple[float, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    domain: Domain | None = None
    domains: tuple[Domain, ...] = tuple(Domain)
    k: int = 10
    offset: int = 0
    filter: str = ""
    group_by: str = ""
    group_size: int = 1
    min_similarity: float | None = None
    mode: Mode | None = None
    fusion_weights: tuple[float, float] = (1.0, 1.0)
    explain: bool = False
    facets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_query()
        self._check_results()
        self._check_ranking()

    @cached_property
    def words(self) -> str | None:
        """The text, with the spaces that separate its words; None: it has no letter or digit."""
        return self.text if readable_text(self.text) else None

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that the query has."""
        present = {
            "file": self.media is not None or bool(self.frames),
            "words": bool(self.words),
            "sample": self.sample_id is not None,
            "vector": bool(self.vector),
        }
        return tuple(name for name in PARTS if present[name])

    @property
    def ranking(self) -> Mode:
        """The mode, chosen if the request does not say it."""
        if self.mode is not None:
            return self.mode
        return MODE_WITH_WORDS if self.parts == ("words",) else "vector"

    def file_bytes(self) -> bytes | None:
        """The bytes of `media`; None: there is none."""
        return self.media.read_bytes() if isinstance(self.media, Path) else self.media

    def _check_query(self) -> None:
        if not self.parts:
            raise ValueError(
                f"the query is empty: no picture or video, and the text is {self.text!r}; expected "
                "a file, words, a sample_id or a vector"
            )
        if self.media is not None and self.frames:
            raise ValueError("the query has both media and frames; expected one of them")
        for name, weight in self.weights.items():
            if name not in self.parts:
                raise ValueError(
                    f"weights names {name!r}, but the query has {', '.join(self.parts)}"
                )
            if not -1000 <= weight <= 1000:
                raise ValueError(f"the weight of {name} is {weight}; expected -1000 to 1000")
        if self.weights and not any(self.weights.values()):
            raise ValueError("all weights are 0; expected at least one other")

    def _check_results(self) -> None:
        if not 1 <= self.k <= MAX_K:
            raise ValueError(f"k is {self.k}; expected 1 to {MAX_K}")
        if self.offset < 0:
            raise ValueError(f"offset is {self.offset}; expected 0 or more")
        if self.group_size < 1:
            raise ValueError(f"group_size is {self.group_size}; expected 1 or more")
        if self.group_size > 1 and not self.group_by:
            raise ValueError(f"group_size is {self.group_size}, but group_by is empty")
        if (results := (self.offset + self.k) * self.group_size) > MAX_RESULTS:
            raise ValueError(
                f"(offset + k) * group_size is {results}; expected at most {MAX_RESULTS}. Narrow "
                "the search by a filter instead of paging so far"
            )
        if not self.domains:
            raise ValueError(f"domains is empty; expected some of {', '.join(Domain)}")

    def _check_ranking(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; expected one of {', '.join(MODES)}")
        if self.ranking != "vector" and not self.words:
            raise ValueError(f"mode is {self.ranking}, but the query has no words")
        if min(self.fusion_weights) < 0 or not sum(self.fusion_weights):
            raise ValueError(
                f"fusion_weights are {self.fusion_weights}; expected two numbers of at least 0, "
                "not both 0"
            )
        if self.min_similarity is not None and not -1 <= self.min_similarity <= 1:
            raise ValueError(f"min_similarity is {self.min_similarity}; expected -1 to 1")
