"""Work that is the same for several rows, done once: rows of equal fingerprint have equal results."""

import pyarrow as pa


class Sharing:
    """Rows of equal fingerprint: the first of each is worked on, and its result is given to all.

    Args:
        due: with sample_id and fingerprint.
    """

    def __init__(self, due: pa.Table) -> None:
        places: dict[str, list[int]] = {}
        for place, print_ in enumerate(due["fingerprint"].to_pylist()):
            places.setdefault(print_, []).append(place)
        self.first = due.take([found[0] for found in places.values()])
        ids = due["sample_id"].to_pylist()
        self._shared = {
            p: [ids[place] for place in found] for p, found in places.items() if len(found) > 1
        }

    def expand(self, results: pa.Table) -> pa.Table:
        """Result rows, each for all the samples it is the result of."""
        if not self._shared:
            return results
        names, places = [], []
        prints, ids = results["fingerprint"].to_pylist(), results["sample_id"].to_pylist()
        for place, (print_, sample_id) in enumerate(zip(prints, ids, strict=True)):
            owners = self._shared.get(print_, [sample_id])
            names += owners
            places += [place] * len(owners)
        column = results.schema.get_field_index("sample_id")
        return results.take(pa.array(places, pa.int64())).set_column(
            column, "sample_id", pa.array(names, pa.string())
        )
