"""The bodies of requests and answers, which the OpenAPI document describes."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ampere.records import Domain
from ampere.retrieval.filters import MAX_CHARACTERS
from ampere.retrieval.request import Mode

MAX_K = 100
MAX_FRAMES = 64
MAX_LINES = 1000  # of a batch
MAX_TEXT = 20_000  # characters
MAX_SAMPLES = 100  # of one request
MAX_VECTOR = 16_384

Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Filter = Annotated[str, Field(max_length=MAX_CHARACTERS)]
SampleId = Annotated[str, Field(min_length=1, max_length=1000)]


class Body(BaseModel):
    """A JSON object without unknown fields."""

    model_config = ConfigDict(extra="forbid")


class MediaFields(Body):
    """A file of a JSON body; as multipart, the file itself is the field `file`."""

    media: str | None = Field(None, description="a picture or a video, in base64")
    media_uri: Annotated[
        str | None, Field(max_length=4000, description="URI of a file in an allowed store")
    ] = None
    frames: list[str] = Field(
        [], max_length=MAX_FRAMES, description="pictures in the order of time, in base64"
    )


class QueryBody(MediaFields):
    """What is searched by: a file, words, a stored sample, a vector, or several of them."""

    text: Text | None = Field(None, description="words; with a file its title or product summary")
    transcript: Text | None = Field(
        None,
        description="speech of the clip; summarized if the endpoint has a summarizer, else used as "
        "text",
    )
    sample_id: SampleId | None = Field(None, description="a stored sample to find similar ones of")
    vector: list[Finite] = Field([], max_length=MAX_VECTOR)
    weights: dict[Literal["file", "words", "sample", "vector"], Finite] = Field(
        {}, description="weight of each part, each embedded alone; default: together, all 1"
    )
    domain: Domain | None = Field(
        None, description="where the file is from; default: a picture is a page, a video a short"
    )
    model: str | None = Field(None, description="a served model; default: the first")


class SearchBody(QueryBody):
    """A search."""

    domains: list[Domain] = Field(list(Domain), min_length=1, description="domains to search")
    k: int = Field(10, ge=1, le=MAX_K, description="hits per domain, or groups")
    offset: int = Field(0, ge=0, le=10_000, description="best hits, or groups, to skip")
    filter: Filter = Field("", description="SQL condition on the columns, such as price < 100")
    group_by: str = Field("", description="column whose values are groups, such as product_id")
    group_size: int = Field(1, ge=1, le=100, description="hits per group")
    min_similarity: Finite | None = Field(None, ge=-1, le=1)
    mode: Mode | None = Field(None, description="default: hybrid for words alone, else vector")
    fusion_weights: tuple[Finite, Finite] = Field(
        (1.0, 1.0), description="of the vector and the lexical ranking in hybrid mode"
    )
    explain: bool = Field(False, description="add to each hit why it was found")
    facets: list[str] = Field([], max_length=20, description="columns whose values are counted")


class FacetsBody(Body):
    """Counts by the values of columns."""

    columns: list[str] = Field(min_length=1, max_length=20)
    text: Text | None = Field(None, description="count the rows that hold one of these words")
    filter: Filter = ""
    domains: list[Domain] = Field(list(Domain), min_length=1)
    model: str | None = None


class SampleBody(MediaFields):
    """A sample to store: with a file, with frames, or with a vector of its own."""

    sample_id: SampleId
    domain: Domain
    product_id: Annotated[str | None, Field(max_length=1000)] = None
    text: Text | None = Field(None, description="a page's title, or the summary of a clip's speech")
    vector: list[Finite] = Field([], max_length=MAX_VECTOR)
    columns: dict[str, Any] = Field({}, description="values of the catalog's further columns")


class SamplesBody(Body):
    """Samples to store, each with an id of its own."""

    samples: list[SampleBody] = Field(min_length=1, max_length=MAX_SAMPLES)

    @field_validator("samples")
    @classmethod
    def _has_no_doubles(cls, samples: list[SampleBody]) -> list[SampleBody]:
        (name, count), *_ = Counter(sample.sample_id for sample in samples).most_common(1)
        if count > 1:
            raise ValueError(f"{count} samples have the sample_id {name[:100]!r}; expected one")
        return samples


class PublishBody(Body):
    """The base to serve."""

    model: str | None = None
    version: int = Field(ge=1, le=2**53)


class ModelBody(Body):
    """A served model; default: the first."""

    model: str | None = None


class QueryKey(Body):
    """What a judged query was, without its file."""

    text: Text | None = None
    sample_id: SampleId | None = None
    media: Annotated[str | None, Field(max_length=64, description="SHA-256 of the file")] = None
    domain: Domain | None = None


class Rival(Body):
    """The other side of a comparison, and where it had the sample."""

    model: str
    mode: Mode
    rank: int | None = Field(None, ge=1)


class JudgmentBody(Body):
    """What a person thinks of a hit."""

    query: QueryKey
    sample_id: SampleId
    model: str
    mode: Mode
    rank: int = Field(ge=1, le=10_000)
    grade: Literal[-1, 1]
    rival: Rival | None = None


class Moment(BaseModel):
    """What names the product in a clip's speech."""

    start_s: float
    end_s: float
    text: str


class Why(BaseModel):
    """The parts of a hit's score; null where one does not apply."""

    similarity: float | None
    vector_rank: int | None
    lexical_score: float | None
    lexical_rank: int | None
    file_similarity: float | None
    words_similarity: float | None
    matched_words: list[str]


class Urls(BaseModel):
    """Relative to the root of the endpoint."""

    sample: str
    frames: str
    media: str


class HitAnswer(BaseModel):
    """A sample that was found."""

    sample_id: str
    product_id: str | None
    domain: Domain
    score: float
    text: str | None
    group: Any
    columns: dict[str, Any]
    moment: Moment | None
    explanation: Why | None
    urls: Urls


class Count(BaseModel):
    """A value of a column and the rows that have it."""

    value: Any
    count: int


class Note(BaseModel):
    """A sentence for people, with a stable code for programs, and the values in it."""

    code: str
    message: str
    values: dict[str, str | int | float]


class QueryEcho(BaseModel):
    """What was searched by in the end."""

    parts: list[str]
    domain: Domain
    text: str | None
    transcript: str | None
    notes: list[Note]


class SearchResult(BaseModel):
    """The hits of each domain, best first; with groups, those of a group are neighbors."""

    results: dict[Domain, list[HitAnswer]]
    facets: dict[str, list[Count]]
    mode: Mode
    model: str
    version: int
    query: QueryEcho
    timing_ms: dict[str, float]


class EmbedAnswer(BaseModel):
    """The vector of a query."""

    vector: list[float]
    dimension: int
    domain: Domain
    model: str


class FacetsAnswer(BaseModel):
    """Values of columns, the most frequent first."""

    facets: dict[str, list[Count]]
    version: int


class Line(BaseModel):
    """A line of a batch's answer: the answer, or the problem."""

    index: int
    status: int
    answer: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None


class StoredItem(BaseModel):
    """What became of a sample."""

    sample_id: str
    status: int
    problem: dict[str, Any] | None


class StoredAnswer(BaseModel):
    """What became of each sample."""

    items: list[StoredItem]


class FrameRef(BaseModel):
    """A stored frame."""

    at_s: float | None
    url: str


class FramesAnswer(BaseModel):
    """The stored frames of a sample."""

    frames: list[FrameRef]


class MediaRef(BaseModel):
    """A file of a sample."""

    url: str
    content_type: str | None


class Transcript(BaseModel):
    """What is said in a clip."""

    text: str | None
    language: str | None
    seconds: float | None
    segments: list[Moment]


class Summary(BaseModel):
    """What a summarizer made of a transcript."""

    method: str
    text: str | None


class SampleAnswer(BaseModel):
    """A stored sample."""

    sample_id: str
    product_id: str | None
    domain: Domain
    text: str | None
    origin: str
    columns: dict[str, Any]
    transcript: Transcript | None
    summaries: list[Summary]
    frames: list[FrameRef]
    media: list[MediaRef]
    urls: Urls


class MomentAnswer(BaseModel):
    """The moment of a clip that fits a query best."""

    at_s: float
    frame: int | None
    by: Literal["frame", "transcript"]
    text: str | None
    similarity: float | None


class ModelAnswer(BaseModel):
    """A served model and its index."""

    model: str
    name: str
    version: int | str
    base_version: int | None
    rows: dict[str, int]
    changes: int | None
    newest_change_age_s: float | None
    recall: dict[str, float | None]
    built_at: str | None
    reads_text: bool
    dimension: int | None
    hits_in_memory: bool | None = Field(
        description="whether the columns of hits are held in memory; see serve.hit_memory_gb"
    )


class Column(BaseModel):
    """A column that can be filtered by."""

    name: str
    type: str


class Engines(BaseModel):
    """Engines behind queries."""

    transcriber: bool
    summarizer: bool


class IndexAnswer(BaseModel):
    """What is served."""

    models: list[ModelAnswer]
    columns: list[Column]
    engines: Engines
    role: Literal["read", "admin"]


class DuplicateAnswer(BaseModel):
    """Two samples of one domain that are almost equal."""

    first: str
    second: str
    similarity: float
    same_product: bool | None


class DoubtfulAnswer(BaseModel):
    """A sample whose neighbors all belong to another product."""

    sample_id: str
    product_id: str
    neighbors_product: str
    similarity: float


class CoverageAnswer(BaseModel):
    """What the catalog lacks, and what looks wrong in it."""

    missing: dict[Domain, list[str]]
    duplicates: list[DuplicateAnswer]
    doubtful: list[DoubtfulAnswer]
    counts: dict[str, Any]
    pages: dict[str, str]


class Failure(BaseModel):
    """A row that failed in a stage."""

    stage: str
    sample_id: str
    error_type: str
    error: str
    failed_at: str


class FailuresAnswer(BaseModel):
    """The failed rows, the newest first."""

    total: int
    failures: list[Failure]


class JudgmentAnswer(BaseModel):
    """The id of a stored judgment."""

    judgment_id: str


class JudgmentsAnswer(BaseModel):
    """Stored judgments, the newest first."""

    judgments: list[dict[str, Any]]


class StatusAnswer(BaseModel):
    """How the endpoint is."""

    status: str


class FieldError(BaseModel):
    """What is wrong with one field."""

    where: str
    message: str
    code: str | None = None
    values: dict[str, str | int | float] = {}


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    code: str = Field(description="of the sentence in `detail`; stable")
    values: dict[str, str | int | float] = Field(description="in that sentence")
    errors: list[FieldError] = []


def facet_counts(facets: Mapping[str, Mapping[Any, int]]) -> dict[str, list[dict[str, Any]]]:
    """Facets as lists, since the values of a column need not be texts."""
    return {
        name: [{"value": value, "count": count} for value, count in counts.items()]
        for name, counts in facets.items()
    }
