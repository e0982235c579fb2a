"""Random reads of stored frames from the Lance table."""

from collections.abc import Sequence

import lance
import numpy as np
import pyarrow.compute as pc

from ampere.records import FRAMES
from ampere.store.workspace import Workspace


class LanceFrames:
    """The `frames` table at one version, read by sample id; cheap to send to another process.

    Args:
        workspace: with the table.

    Raises:
        FileNotFoundError: the workspace has no frames.
    """

    def __init__(self, workspace: Workspace) -> None:
        table = workspace.table(FRAMES)
        dataset = table.dataset()
        if dataset is None:
            raise FileNotFoundError(f"no frames in {workspace.uri}; run `ampere decode` first")
        self.uri, self.version = table.uri, dataset.version
        self._position: dict[str, int] | None = None
        self._dataset: lance.LanceDataset | None = None

    def find(self, sample_id: str) -> list[bytes]:
        """JPEG frames of one sample, for reads of few samples: it needs no list of all ids.

        Raises:
            KeyError: the sample has no frames.
        """
        rows = self.dataset().to_table(
            columns=["frames"], filter=pc.field("sample_id") == sample_id
        )
        if not rows.num_rows:
            raise KeyError(sample_id)
        frames: list[bytes] = rows["frames"][0].as_py()
        return frames

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        """JPEG frames of some samples, in their order, for reads of all samples in turn.

        Raises:
            KeyError: a sample has no frames.
        """
        positions = [self._positions()[sample_id] for sample_id in sample_ids]
        if not positions:
            return []
        return self.dataset().take(positions, columns=["frames"])["frames"].to_pylist()

    def __contains__(self, sample_id: str) -> bool:
        """Whether a sample has frames."""
        return sample_id in self._positions()

    def dataset(self) -> lance.LanceDataset:
        """The table at this version."""
        if self._dataset is None:
            self._dataset = lance.dataset(self.uri, version=self.version)
        return self._dataset

    def _positions(self) -> dict[str, int]:
        """Sample id -> row, read on first use.

        Of 1,000,000 ids it takes 0.6 s and 200 MB, but then 64 samples at random are read in 6 ms;
        by the index on the ids, they take 16 ms.
        """
        if self._position is None:
            ids = self.dataset().to_table(columns=["sample_id"])["sample_id"].to_pylist()
            self._position = {sample_id: at for at, sample_id in enumerate(ids)}
        return self._position

    def __getstate__(self) -> dict[str, object]:
        return {"uri": self.uri, "version": self.version, "_position": None, "_dataset": None}


def enlarged_note(stage: str, frames: LanceFrames, model: str, size: int) -> list[str]:
    """Report that a model would enlarge the stored frames of most samples more than twice.

    Args:
        stage: that reads the frames.
        frames: stored.
        model: name of the model.
        size: height and width of the frames that it reads, in pixels.

    Returns:
        A line, or nothing.
    """
    rows = frames.dataset().to_table(columns=["width", "height"])
    sides = pc.min_element_wise(rows["width"], rows["height"]).drop_null().to_numpy()
    small = int((2 * sides < size).sum())
    if 2 * small <= len(sides):
        return []
    return [
        f"{stage}: {model} reads frames of {size} pixels, but those of {small} of {len(sides)} "
        f"samples are stored with a shorter side of less than half of that ({np.median(sides):.0f} "
        "in the median), and show little when enlarged. If the files are larger, decode again with "
        f"--decode.short-side {size} or more"
    ]
