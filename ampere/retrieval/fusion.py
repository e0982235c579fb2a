"""Rankings joined and grouped: reciprocal rank fusion, and the best hits of each group."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")

# Of Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual
# rank learning methods" (SIGIR 2009), who found that results depend little on it.
RANK_CONSTANT = 60


def reciprocal_rank_fusion(
    rankings: Sequence[Mapping[Key, int]], weights: Sequence[float]
) -> dict[Key, float]:
    """Score of each key: the sum of weight / (60 + rank) over the rankings that have it.

    >>> scores = reciprocal_rank_fusion([{"a": 1, "b": 2}, {"b": 1}], [1, 1])
    >>> [(key, round(score, 4)) for key, score in scores.items()]
    [('a', 0.0164), ('b', 0.0325)]

    Args:
        rankings: key -> rank, from 1.
        weights: of each ranking.
    """
    scores: dict[Key, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for key, rank in ranking.items():
            scores[key] = scores.get(key, 0.0) + weight / (RANK_CONSTANT + rank)
    return scores


def best_of_groups(
    items: Iterable[Item], group_of: Callable[[Item], Hashable], size: int
) -> dict[Hashable, list[Item]]:
    """The first `size` items of each group; groups in the order of their first items.

    >>> best_of_groups(["a1", "b1", "a2", "a3"], lambda item: item[0], 2)
    {'a': ['a1', 'a2'], 'b': ['b1']}
    """
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        of_group = groups.setdefault(group_of(item), [])
        if len(of_group) < size:
            of_group.append(item)
    return groups
