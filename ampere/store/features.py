"""Random reads of a frozen tower's stored features, for training and embedding."""

from collections.abc import Sequence
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.records import FEATURES
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace


class LanceFeatures:
    """The features of one tower at one version of the table; cheap to send to another process.

    Features of frames that have changed since are left out.

    Args:
        workspace: with the table, which need not exist.
        tower: name of the tower.
        frames: of the workspace, at the version that the features must be of.
    """

    def __init__(self, workspace: Workspace, tower: str, frames: LanceFrames) -> None:
        dataset = workspace.table(FEATURES).dataset()
        self.uri = workspace.table(FEATURES).uri
        self.version = 0 if dataset is None else dataset.version
        self.positions: dict[str, int] = {}
        self._dataset: lance.LanceDataset | None = None
        if dataset is not None:
            stored = frames.dataset().to_table(columns=["sample_id", "fingerprint"])
            rows = dataset.to_table(columns=["sample_id", "tower", "fingerprint"])
            at = pc.index_in(rows["sample_id"], value_set=stored["sample_id"].combine_chunks())
            is_current = pc.equal(rows["fingerprint"], stored["fingerprint"].take(at))
            is_known = pc.fill_null(pc.and_(is_current, pc.equal(rows["tower"], tower)), False)
            places = np.flatnonzero(is_known.to_numpy()).tolist()
            ids = rows["sample_id"].filter(is_known).to_pylist()
            self.positions = dict(zip(ids, places, strict=True))

    @property
    def location(self) -> tuple[str, int]:
        """URI and version of the table."""
        return self.uri, self.version

    def __contains__(self, sample_id: str) -> bool:
        """Whether a sample has features."""
        return sample_id in self.positions

    def take_features(self, sample_ids: Sequence[str]) -> list[NDArray[np.float16]]:
        """Features of some samples, in their order: float16 [F, V] each.

        Raises:
            KeyError: a sample has no features.
        """
        positions = [self.positions[sample_id] for sample_id in sample_ids]
        if not positions:
            return []
        if self._dataset is None:
            self._dataset = lance.dataset(self.uri, version=self.version)
        rows = self._dataset.take(positions, columns=["num_frames", "features"])
        counts = rows["num_frames"].to_pylist()
        return [feature_array(*row) for row in zip(rows["features"], counts, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_dataset": None}


def feature_array(features: pa.ListScalar, num_frames: int) -> NDArray[np.float16]:
    """The features of one row of the table: float16 [F, V]."""
    return features.values.to_numpy().reshape(num_frames, -1)
