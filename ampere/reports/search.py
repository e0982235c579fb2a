"""`ampere search`: one query against the index, in this process, without a server."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ampere.config.index import Engine, IndexSettings, require_engine
from ampere.config.systems import named_settings
from ampere.media.isolated import IsolatedProcess
from ampere.media.query import query_domain, query_frames
from ampere.models.model_folder import embedding_name, text_source
from ampere.records import Domain
from ampere.reports.text_table import new_table, render_table
from ampere.retrieval.cells import json_value
from ampere.retrieval.index_types import set_blas_threshold
from ampere.retrieval.query_vector import Embedding, combine, embeddings_needed
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import SearchAnswer
from ampere.store.indexes import open_engine
from ampere.store.models import model_folder
from ampere.store.moments import latest_transcripts, with_moments
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace
from ampere.text.transcript import Segment

if TYPE_CHECKING:
    from ampere.models.embedder import Embedder

SHOWN_TEXT = 40  # characters of a hit's text


def search(
    workspace: Workspace,
    model: str,
    request: SearchRequest,
    engine: Engine | None = None,
    uri: str = "",
) -> SearchAnswer:
    """The best samples of each domain for a request.

    Args:
        workspace: with the model.
        model: its name.
        request: what is asked for.
        engine: that searches; None: that of the last `ampere index`, with its URI.
        uri: of Milvus.

    Raises:
        ValueError: the model cannot embed the request, or a field of the request does not fit the
            search table.
        FileNotFoundError: the model or its index does not exist.
        ConnectionError: Milvus does not answer.
        MediaError: the media are neither an image nor a video.
    """
    if engine is None:
        last = last_settings(workspace, "index", IndexSettings())
        engine, uri = last.engine, last.uri
    require_engine("--", engine, uri)
    set_blas_threshold()
    folder = model_folder(workspace, model)
    request = readable_request(folder, request)
    opened = open_engine(workspace, embedding_name(folder), engine, uri)
    try:
        embedded = {}
        if embeddings_needed(request):
            from ampere.models.embedder import Embedder  # imports torch: seconds

            embedded = embed_query(workspace, Embedder(folder), request)
        sample = None
        if request.sample_id is not None:
            sample = opened.vector_of(request.sample_id)
        answer = opened.search(request, combine(request, embedded, sample))
        hits = with_moments(latest_transcripts(workspace)(), answer.hits, request.words)
        return dataclasses.replace(answer, hits=hits)
    finally:
        opened.close()


def readable_request(folder: Path, request: SearchRequest) -> SearchRequest:
    """The request with words alone ranked by words, if the model reads no text; else the same.

    A mode that the request names stays.
    """
    is_words_alone = request.mode is None and request.parts == ("words",)
    if is_words_alone and text_source(folder) == "none":
        return dataclasses.replace(request, mode="lexical")
    return request


def embed_query(
    workspace: Workspace, embedder: "Embedder", request: SearchRequest
) -> dict[Embedding, NDArray[np.float32]]:
    """The vectors of a query's file and words that the search needs, float32 [D] each.

    Raises:
        ValueError: the model cannot embed them.
        MediaError: the media are neither an image nor a video.
    """
    frames = query_media(workspace, embedder, request)
    domain = request.domain or (query_domain(frames) if frames else Domain.PAGE)
    needed = embeddings_needed(request)
    vectors = embedder.embed(
        [None if part == "words" else frames for part in needed],
        [None if part == "file" else request.text for part in needed],
        [domain] * len(needed),
    )
    return dict(zip(needed, vectors, strict=True))


def query_media(
    workspace: Workspace, embedder: "Embedder", request: SearchRequest
) -> list[bytes] | None:
    """The frames of a query as the decode stage would store them; None: it has no file."""
    media = request.file_bytes() or list(request.frames)
    if not media:
        return None
    decode = last_settings(workspace, "decode", named_settings(workspace.preset).decode)
    decode = dataclasses.replace(decode, num_frames=embedder.model.num_frames)
    with IsolatedProcess(decode.time_limit_s, decode.memory_limit_gb) as process:
        return process.call(query_frames, media, decode, request.domain)


def as_json(answer: SearchAnswer) -> dict[str, Any]:
    """An answer as JSON-like values; times as ISO text."""
    return {
        "mode": answer.mode,
        "version": answer.version,
        "results": {
            str(domain): [hit_as_json(hit) for hit in hits] for domain, hits in answer.hits.items()
        },
        "facets": {
            name: {json_value(value): count for value, count in counts.items()}
            for name, counts in answer.facets.items()
        },
    }


def hit_as_json(hit: Any) -> dict[str, Any]:
    """A hit with its further columns beside its own."""
    fields = vars(hit) | {name: json_value(value) for name, value in hit.columns.items()}
    del fields["columns"]
    for name in ("explanation", "moment"):
        fields[name] = None if fields[name] is None else vars(fields[name])
    return fields


def format_hits(answer: SearchAnswer) -> str:
    """Search answers as a text table, one line per hit, and the facets below."""
    rows = {str(domain): [vars(hit) for hit in hits] for domain, hits in answer.hits.items()}
    lines = [hit_table(rows)]
    for name, counts in answer.facets.items():
        shown = ", ".join(f"{value} {count}" for value, count in counts.items())
        lines.append(f"{name}: {shown or 'no values'}")
    return "\n".join(lines)


def hit_table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Hits as a text table.

    Args:
        results: domain -> hits with score, product_id, sample_id, text, and a moment if there is
            one, whose times and text are shown.
    """
    table = new_table("domain", "score", "product", "sample", "text")
    for domain, of_domain in results.items():
        for hit in of_domain:
            text = " ".join((hit["text"] or "").split())[:SHOWN_TEXT]
            if moment := hit.get("moment"):
                said = vars(moment) if isinstance(moment, Segment) else moment
                text = f"{said['start_s']:.0f} s: {said['text'][:SHOWN_TEXT]}"
            product = hit["product_id"] or "-"
            table.add_row(domain, f"{hit['score']:.3f}", product, hit["sample_id"], text)
    return render_table(table)
