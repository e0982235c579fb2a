"""Rows of equal fingerprint have equal results: process one of them, share its result."""

import pyarrow as pa


class Duplicates:
    """Groups of rows with equal fingerprints.

    Args:
        rows: with sample_id and fingerprint.

    Attributes:
        first: the first row of each group.
    """

    def __init__(self, rows: pa.Table) -> None:
        groups: dict[str, list[int]] = {}
        for place, fingerprint in enumerate(rows["fingerprint"].to_pylist()):
            groups.setdefault(fingerprint, []).append(place)
        ids = rows["sample_id"].to_pylist()
        self.first = rows.take(pa.array([places[0] for places in groups.values()], pa.int64()))
        self._samples = {
            fingerprint: [ids[place] for place in places]
            for fingerprint, places in groups.items()
            if len(places) > 1
        }

    def expand(self, results: pa.Table) -> pa.Table:
        """Repeat each result row for all samples of its group."""
        if not self._samples:
            return results
        ids, places = [], []
        keys = zip(
            results["fingerprint"].to_pylist(), results["sample_id"].to_pylist(), strict=True
        )
        for place, (fingerprint, sample_id) in enumerate(keys):
            samples = self._samples.get(fingerprint, [sample_id])
            ids += samples
            places += [place] * len(samples)
        column = results.schema.get_field_index("sample_id")
        expanded = results.take(pa.array(places, pa.int64()))
        return expanded.set_column(column, "sample_id", pa.array(ids, pa.string()))
