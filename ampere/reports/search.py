"""`ampere search`: one query against the index, in this process, without a server."""

import dataclasses
from pathlib import Path
from typing import Any

from ampere.config.presets import PRESETS
from ampere.media.isolated import IsolatedProcess
from ampere.media.query import query_domain, query_frames
from ampere.models.embedder import Embedder
from ampere.records import Domain
from ampere.store.indexes import open_index
from ampere.store.models import model_folder
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace


def search(
    workspace: Workspace, model: str, file: Path | None, text: str | None, k: int
) -> dict[str, Any]:
    """The `k` best samples of each domain for a picture or video with or without text.

    Raises:
        ValueError: no file is given, but the model embeds text only together with pictures; or the index is of other
            weights than the model's.
        FileNotFoundError: the file, the model or its index is not there.
        MediaError: the file is neither an image nor a video.
    """
    if file is None:
        raise ValueError("give --file PICTURE-or-VIDEO (and --text, where you have one)")
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
    """Search answers as a text table."""
    lines = []
    for domain, found in hits.items():
        lines.append(f"{domain}:")
        lines += [
            f"  {hit['score']:.3f}  {hit['product_id'] or '-':<10} {hit['sample_id']:<16} {(hit['text'] or '')[:40]}"
            for hit in found
        ]
    return "\n".join(lines)
