"""`ampere search`: one query against the index, in this process, without a server."""

import dataclasses
from pathlib import Path
from typing import Any

from ampere.config.presets import PRESETS
from ampere.media.isolated import IsolatedProcess
from ampere.media.query import query_domain, query_frames
from ampere.models.embedder import Embedder
from ampere.records import Domain
from ampere.reports.text_table import new_table, render_table
from ampere.retrieval.index_types import set_blas_threshold
from ampere.store.indexes import open_index
from ampere.store.models import model_folder
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace

SHOWN_TEXT = 40  # characters of a hit's text


def search(
    workspace: Workspace, model: str, file: Path | None, text: str | None, k: int
) -> dict[str, Any]:
    """The `k` best samples of each domain for a picture or video, with or without its text.

    Args:
        file: must be given; None is accepted so that the message can say why.
        text: title of the picture, or product summary of the video's speech.

    Returns:
        Domain -> hits as dictionaries, the best first.

    Raises:
        ValueError: no file is given, since the model embeds text only together with pictures; or
            the index holds vectors of other weights than the model's.
        FileNotFoundError: the file, the model or its index does not exist.
        MediaError: the file is neither an image nor a video.
    """
    if file is None:
        raise ValueError("no query; give --file PICTURE-or-VIDEO, and its --text if it has one")
    set_blas_threshold()
    embedder = Embedder(model_folder(workspace, model))
    index = open_index(workspace, model, embedder.name)
    decode = last_settings(workspace, "decode", PRESETS[workspace.preset]().decode)
    decode = dataclasses.replace(decode, num_frames=embedder.model.num_frames)
    with IsolatedProcess(decode.time_limit_s, decode.memory_limit_gb) as process:
        frames = process.call(query_frames, file.read_bytes(), decode)
    vector = embedder.embed([frames], [text], [query_domain(frames)])
    return {
        str(domain): [vars(hit) for hit in index.search(vector, domain, k).hits()[0]]
        for domain in Domain
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
