"""The vector of a query, from the vectors of its parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ampere.retrieval.request import SearchRequest

Embedding = Literal["joint", "file", "words"]


@dataclass(frozen=True)
class QueryVectors:
    """What a search compares stored vectors with.

    Attributes:
        query: float32 [D], of the whole query, of length 1; None: it ranks by words alone.
        file, words: float32 [D], of the file alone and of the words alone, for explanations; None:
            the query has no such part, or no explanation was asked for.
    """

    query: NDArray[np.float32] | None
    file: NDArray[np.float32] | None = None
    words: NDArray[np.float32] | None = None


def embeddings_needed(request: SearchRequest) -> tuple[Embedding, ...]:
    """What has to be embedded for a request: file and words together, or each alone."""
    needed: list[Embedding] = []
    alone: tuple[Embedding, ...] = ("file", "words")
    present = [part for part in alone if part in request.parts]
    if request.ranking != "lexical" or request.explain:
        needed = ["joint"] if len(present) == 2 and not request.weights else list(present)
        if request.explain:
            needed += [part for part in present if part not in needed]
    return tuple(needed)


def combine(
    request: SearchRequest,
    embedded: Mapping[Embedding, NDArray[np.float32]],
    sample: NDArray[np.float32] | None = None,
) -> QueryVectors:
    """Join the vectors of a query's parts.

    Args:
        request: the query.
        embedded: the vectors of `embeddings_needed`, float32 [D] each, of length 1.
        sample: float32 [D], the stored vector of `request.sample_id`; None: it has none.

    Raises:
        ValueError: the request's vector has another length than the model's, or the parts cancel
            each other out.
    """
    vectors = {}
    if sample is not None:
        vectors["sample"] = sample
    if request.vector:
        vectors["vector"] = unit(np.array(request.vector, np.float32))
    if "joint" in embedded:
        vectors["joint"] = embedded["joint"]
    else:
        vectors |= {name: embedded[name] for name in ("file", "words") if name in embedded}
    if len({len(vector) for vector in vectors.values()}) > 1:
        sizes = ", ".join(f"{name} {len(vector)}" for name, vector in vectors.items())
        raise ValueError(f"the parts of the query have different dimensions: {sizes}")
    if not vectors or request.ranking == "lexical":
        whole = None
    elif len(vectors) == 1 and not request.weights:
        (whole,) = vectors.values()
    else:
        weights = request.weights
        terms = [weights.get(name, 1.0) * vector for name, vector in vectors.items()]
        whole = unit(np.sum(terms, axis=0))
    if not request.explain:
        return QueryVectors(whole)
    return QueryVectors(whole, embedded.get("file"), embedded.get("words"))


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector scaled to length 1.

    Raises:
        ValueError: it has no direction.
    """
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm < 1e-12:
        raise ValueError(
            f"the vector of the query has length {norm:g}; expected a finite length above 0"
        )
    return (vector / norm).astype(np.float32)
