"""The live index: a snapshot of a search table that follows the table while it is searched.

A searcher looks for changes every second or so. It builds the next snapshot beside the one that is
searched and swaps them at once, so a search sees one version of the table from its begin to its
end, and never waits.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import lance

from ampere.retrieval.base import Base
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import SearchAnswer, search
from ampere.retrieval.snapshot import Snapshot

SERVING_TAG = "serving"  # of the version of the table whose base is searched
INDEX_CACHE_BYTES, METADATA_CACHE_BYTES = 256 * 2**20, 64 * 2**20  # of Lance
POLL_S = 1.0
logger = logging.getLogger(__name__)


class Searcher:
    """Searches a table while it changes.

    Args:
        uri: of the search table.
        base_folder: gives the local folder of the base that was built at a version of the table.
        shards: shards of the base to load, with the rows added to them since; None: all.
        poll_s: seconds between two looks for changes, once `start` was called.
        held_bytes: memory for the columns of hits; see `ampere.retrieval.hit_rows`.

    Raises:
        ValueError: no base is published, or a file of it does not match its checksum.
    """

    def __init__(
        self,
        uri: str,
        base_folder: Callable[[int], Path],
        shards: Sequence[int] | None = None,
        poll_s: float = POLL_S,
        held_bytes: int = 0,
    ) -> None:
        self._base_folder, self._shards, self._poll_s = base_folder, shards, poll_s
        self._held_bytes = held_bytes
        self._session = lance.Session(
            index_cache_size_bytes=INDEX_CACHE_BYTES,
            metadata_cache_size_bytes=METADATA_CACHE_BYTES,
        )
        self._dataset = lance.dataset(uri, session=self._session)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # of `refresh`
        self.snapshot = self._load()

    def refresh(self) -> bool:
        """Take over what has changed since the last call; return whether anything had.

        Raises:
            ValueError: a new base was published, and a file of it does not match its checksum.
        """
        with self._lock:
            snapshot = self.snapshot
            if serving_version(self._dataset) != snapshot.base.version:
                self.snapshot = self._load()
                return True
            if self._dataset.latest_version == snapshot.version:
                return False
            try:
                latest = snapshot.dataset.checkout_version(self._dataset.latest_version)
                self.snapshot = snapshot.advanced(latest)
            except (OSError, ValueError, RuntimeError):  # its version was cleaned up
                self.snapshot = self._load()
            return True

    def search(self, request: SearchRequest, vectors: QueryVectors) -> SearchAnswer:
        """The hits of a request; see `ampere.retrieval.search.search`."""
        return search(self.snapshot, request, vectors)

    def start(self) -> "Searcher":
        """Look for changes in a thread from now on, until `close`."""
        self._thread = threading.Thread(target=self._follow, name="searcher", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop looking for changes."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> "Searcher":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self) -> Snapshot:
        version = serving_version(self._dataset)
        base = Base(self._base_folder(version), self._shards)
        snapshot = Snapshot.of_base(base, self._dataset, self._held_bytes)
        latest = snapshot.dataset.checkout_version(self._dataset.latest_version)
        return snapshot.advanced(latest) if latest.version != version else snapshot

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self.refresh()
            except Exception:  # the next look may succeed; until then the last version is searched
                logger.exception("searcher: cannot follow the search table; it will try again")


def serving_version(dataset: lance.LanceDataset) -> int:
    """The version of the table whose base is published.

    Raises:
        ValueError: none is.
    """
    tags = dataset.tags.list()
    if SERVING_TAG not in tags:
        raise ValueError("the search table has no published base; run `ampere index`")
    return tags[SERVING_TAG]["version"]


def set_serving(dataset: lance.LanceDataset, version: int) -> None:
    """Publish the base that was built at a version: searchers change to it at their next look."""
    if SERVING_TAG in dataset.tags.list():
        dataset.tags.update(SERVING_TAG, version)
    else:
        dataset.tags.create(SERVING_TAG, version)
