"""`ampere search`: one query against the index, in this process, without a server."""

import dataclasses
from typing import Any

from ampere.config.presets import PRESETS
from ampere.media.isolated import IsolatedProcess
from ampere.media.query import query_domain, query_frames
from ampere.models.embedder import Embedder
from ampere.records import Domain
from ampere.reports.text_table import new_table, render_table
from ampere.retrieval.index_types import set_blas_threshold
from ampere.retrieval.request import SearchRequest
from ampere.store.indexes import open_index
from ampere.store.models import model_folder
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace

SHOWN_TEXT = 40  # characters of a hit's text


def search(workspace: Workspace, model: str, request: SearchRequest) -> dict[str, Any]:
    """The best samples of each domain for a request.

    Returns:
        Domain -> hits as dictionaries, the best first.

    Raises:
        ValueError: the model cannot embed the request, or the index holds vectors of other weights
            than the model's.
        FileNotFoundError: the model or its index does not exist.
        MediaError: the media are neither an image nor a video.
    """
    set_blas_threshold()
    embedder = Embedder(model_folder(workspace, model))
    index = open_index(workspace, model, embedder.name)
    frames = None
    if request.media is not None:
        decode = last_settings(workspace, "decode", PRESETS[workspace.preset]().decode)
        decode = dataclasses.replace(decode, num_frames=embedder.model.num_frames)
        with IsolatedProcess(decode.time_limit_s, decode.memory_limit_gb) as process:
            frames = process.call(query_frames, request.media, decode, request.domain)
    domain = request.domain or (query_domain(frames) if frames else Domain.PAGE)
    vector = embedder.embed([frames], [request.text], [domain])
    return {
        str(domain): [vars(hit) for hit in index.search(vector, domain, request.k).hits()[0]]
        for domain in request.domains
    }


def format_hits(hits: dict[str, Any]) -> str:
    """Search answers as a text table, one line per hit."""
    table = new_table("domain", "score", "product", "sample", "text")
    for domain, of_domain in hits.items():
        for hit in of_domain:
            text = " ".join((hit["text"] or "").split())[:SHOWN_TEXT]
            product = hit["product_id"] or "-"
            table.add_row(domain, f"{hit['score']:.3f}", product, hit["sample_id"], text)
    return render_table(table)
