r"""Search an index from Python: load a model once, then ask with a picture or a video.

    python examples/search_from_python.py WORKSPACE FILE [TEXT]

After `make demo`, for example:

    python examples/search_from_python.py demo/workspace demo/catalog/lives/p00000-0.mp4 \
        '灵岚墨薄荷修护洗发乳 冲洗不假滑 三百毫升'
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

from ampere.config.systems import named_settings
from ampere.media.query import query_domain, query_frames
from ampere.models.embedder import Embedder
from ampere.records import Domain
from ampere.retrieval.index_types import set_blas_threshold
from ampere.retrieval.query_vector import Embedding, combine
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import Hit
from ampere.store.indexes import open_searcher
from ampere.store.models import model_folder
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace


class Search:
    """A model and its index, in memory. `self.searcher.refresh()` takes over what has changed.

    Files are decoded in this process. For files of strangers, use `ampere.media.isolated`, as
    `ampere/reports/search.py` does.
    """

    def __init__(self, uri: str | Path, model: str = "ampere") -> None:
        workspace = Workspace.open(uri)
        self.embedder = Embedder(model_folder(workspace, model))
        self.searcher = open_searcher(workspace, self.embedder.name)
        decode = last_settings(workspace, "decode", named_settings(workspace.preset).decode)
        self.decode = dataclasses.replace(decode, num_frames=self.embedder.model.num_frames)

    def __call__(
        self, file: Path, text: str | None = None, k: int = 3
    ) -> Iterator[tuple[Domain, Hit]]:
        """The `k` best hits of each domain, best first."""
        request = SearchRequest(media=file, text=text, k=k, mode="vector")
        frames = query_frames(file.read_bytes(), self.decode)
        (vector,) = self.embedder.embed([frames], [text], [query_domain(frames)])
        part: Embedding = "joint" if text else "file"
        answer = self.searcher.search(request, combine(request, {part: vector}))
        for domain, hits in answer.hits.items():
            for hit in hits:
                yield domain, hit


def main(uri: str, file: str, text: str | None = None) -> None:
    """Print the best hits of each domain."""
    set_blas_threshold()  # FAISS compares small batches by matrix products, too
    for domain, hit in Search(uri)(Path(file), text):
        print(f"{domain:<6}{hit.score:.3f}  {hit.sample_id:<18}{hit.text or ''}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
