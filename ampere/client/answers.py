"""What the endpoint answers, as frozen dataclasses."""

from dataclasses import dataclass
from typing import Any

from ampere.client.errors import ApiError
from ampere.client.queries import Domain


@dataclass(frozen=True)
class Urls:
    """Addresses of a sample's parts, relative to the server's root; None: it has none."""

    sample: str
    frames: str | None
    media: str | None


@dataclass(frozen=True)
class Moment:
    """A part of a clip and what is said in it; times in seconds."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Explanation:
    """Why a sample was found; None where a part does not apply.

    Attributes:
        similarity: cosine of the stored vector and the query's.
        vector_rank: among the samples of its domain by vector, from 1.
        lexical_score: BM25.
        lexical_rank: among the samples of its domain by words, from 1.
        file_similarity: cosine of the stored vector and that of the query's file alone.
        words_similarity: the same of the query's words alone.
        matched_words: words of the query that the sample's text holds.
    """

    similarity: float | None
    vector_rank: int | None
    lexical_score: float | None
    lexical_rank: int | None
    file_similarity: float | None
    words_similarity: float | None
    matched_words: tuple[str, ...]


@dataclass(frozen=True)
class Hit:
    """A sample that was found.

    Attributes:
        score: by which the hits are ranked, the best first.
        group: value of the column `group_by`; None without one.
        columns: values of the catalog's further columns.
        moment: when the clip names the product; None: unknown.
        explanation: with `explain`.
    """

    sample_id: str
    product_id: str | None
    domain: Domain
    score: float
    text: str | None
    group: Any
    columns: dict[str, Any]
    moment: Moment | None
    explanation: Explanation | None
    urls: Urls


@dataclass(frozen=True)
class ValueCount:
    """A value of a column, and the number of samples that have it."""

    value: Any
    count: int


@dataclass(frozen=True)
class Note:
    """A sentence of the endpoint, with a stable code."""

    code: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class QueryUsed:
    """The query as the endpoint understood it.

    Attributes:
        parts: some of file, words, sample, vector.
        domain: where the query comes from; None: it has no file and no words.
        text: words that were searched; None: none.
        transcript: what was heard in the clip; None: nothing, or no transcriber.
        notes: what the search had to go without, such as a transcriber that did not answer.
    """

    parts: tuple[str, ...]
    domain: Domain | None
    text: str | None
    transcript: str | None
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class SearchAnswer:
    """Hits of each domain, the best first.

    Attributes:
        facets: column -> counts of its values.
        mode: vector, lexical or hybrid.
        model: name with a checksum of its weights.
        version: of the search table.
        timing_ms: step -> milliseconds.
    """

    results: dict[Domain, tuple[Hit, ...]]
    facets: dict[str, tuple[ValueCount, ...]]
    mode: str
    model: str
    version: int
    query: QueryUsed
    timing_ms: dict[str, float]


@dataclass(frozen=True)
class Embedding:
    """A vector of length 1."""

    vector: tuple[float, ...]
    dimension: int
    domain: Domain
    model: str


@dataclass(frozen=True)
class FacetCounts:
    """Counts of the values of columns, at one version of the search table."""

    facets: dict[str, tuple[ValueCount, ...]]
    version: int


@dataclass(frozen=True)
class StoredItem:
    """What became of one sample of `put_samples`.

    Attributes:
        status: HTTP status; 200: it is stored.
        error: why it is not.
    """

    sample_id: str
    status: int
    error: ApiError | None


@dataclass(frozen=True)
class Transcript:
    """What is said in a clip."""

    text: str | None
    language: str | None
    seconds: float | None
    segments: tuple[Moment, ...]


@dataclass(frozen=True)
class Summary:
    """The summary of a clip's transcript by one method."""

    method: str
    text: str | None


@dataclass(frozen=True)
class Frame:
    """A stored picture of a sample; `at_s` is None for a page."""

    at_s: float | None
    url: str


@dataclass(frozen=True)
class Media:
    """An original file of a sample."""

    url: str
    content_type: str


@dataclass(frozen=True)
class StoredSample:
    """All that is stored of a sample."""

    sample_id: str
    product_id: str | None
    domain: Domain
    text: str | None
    origin: str
    columns: dict[str, Any]
    transcript: Transcript | None
    summaries: tuple[Summary, ...]
    frames: tuple[Frame, ...]
    media: tuple[Media, ...]
    urls: Urls


@dataclass(frozen=True)
class MomentAnswer:
    """The moment of a clip that fits a query best.

    Attributes:
        at_s: seconds from the start of the clip.
        frame: number of the nearest frame, from 0.
        by: frame or transcript.
        text: what is said then.
        similarity: of the frame and the query.
    """

    at_s: float
    frame: int
    by: str
    text: str | None
    similarity: float | None


@dataclass(frozen=True)
class ServedModel:
    """A model that is served, and its index; what Milvus does not say is None.

    Attributes:
        model: its name, as requests give it.
        name: with a checksum of its weights.
        version: of the search table; `base_version` is the one that the index was built at.
        rows: domain -> number of samples.
        changes: samples that changed since the index was built.
        newest_change_age_s: seconds; None: no change.
        recall: domain -> of the index, as measured when it was built; None: unknown.
        built_at: ISO 8601.
        hits_in_memory: whether the endpoint holds the columns of hits in memory.
    """

    model: str
    name: str
    version: int
    base_version: int | None
    rows: dict[Domain, int]
    changes: int | None
    newest_change_age_s: float | None
    recall: dict[Domain, float | None]
    built_at: str | None
    reads_text: bool
    dimension: int | None
    hits_in_memory: bool | None


@dataclass(frozen=True)
class Column:
    """A column of the catalog; the type is string, number, boolean, timestamp or strings."""

    name: str
    type: str


@dataclass(frozen=True)
class Engines:
    """Which engines prepare queries."""

    transcriber: bool
    summarizer: bool


@dataclass(frozen=True)
class Index:
    """What is served, and the role of the key: admin or read."""

    models: tuple[ServedModel, ...]
    columns: tuple[Column, ...]
    engines: Engines
    role: str


@dataclass(frozen=True)
class Duplicate:
    """Two samples that look and read alike."""

    first: str
    second: str
    similarity: float
    same_product: bool | None


@dataclass(frozen=True)
class Doubtful:
    """A sample whose neighbors all belong to another product."""

    sample_id: str
    product_id: str | None
    neighbors_product: str
    similarity: float


@dataclass(frozen=True)
class CoverageCounts:
    """Numbers of what `Coverage` lists the first of."""

    products: int
    missing: dict[Domain, int]
    duplicates: int
    doubtful: int


@dataclass(frozen=True)
class Coverage:
    """What a catalog lacks, and what looks wrong in it.

    Attributes:
        missing: domain -> products without a sample of it.
        pages: product -> id of a sample to show for it.
    """

    missing: dict[Domain, tuple[str, ...]]
    duplicates: tuple[Duplicate, ...]
    doubtful: tuple[Doubtful, ...]
    counts: CoverageCounts
    pages: dict[str, str]


@dataclass(frozen=True)
class Failure:
    """A sample that a stage could not process; `failed_at` is ISO 8601."""

    stage: str
    sample_id: str
    error_type: str
    error: str
    failed_at: str


@dataclass(frozen=True)
class Failures:
    """The number of failed samples, and the newest of them."""

    total: int
    failures: tuple[Failure, ...]


@dataclass(frozen=True, kw_only=True)
class QueryKey:
    """Which query was judged.

    Attributes:
        media: SHA-256 of the query's file, hexadecimal: `hashlib.sha256(data).hexdigest()`.
    """

    text: str | None = None
    sample_id: str | None = None
    media: str | None = None
    domain: Domain | None = None


@dataclass(frozen=True)
class Rival:
    """The model and mode shown beside the judged one.

    Attributes:
        rank: its rank of the judged sample, from 1; None: it did not show the sample.
    """

    model: str
    mode: str
    rank: int | None = None


@dataclass(frozen=True)
class Judgment:
    """A stored judgment; `grade` is 1 or -1, `judged_at` is ISO 8601."""

    judgment_id: str
    query: QueryKey
    sample_id: str
    model: str
    mode: str
    rank: int
    grade: int
    rival: Rival | None
    judged_at: str
