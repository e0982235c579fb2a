"""The machines of a cluster as `ampere plan` takes them: `cpu=16x16,gpu=8x8x1`."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ampere.config.checks import require

NODES = re.compile(r"([A-Za-z][\w-]*)=(\d+)x(\d+)(?:x(\d+))?")
EXAMPLE = "cpu=16x16,gpu=8x8x1: 16 nodes of 16 cores, and 8 nodes of 8 cores and 1 GPU"


@dataclass(frozen=True)
class Nodes:
    """The nodes of one type.

    Attributes:
        name: of the type.
        count: number of nodes.
        cores: of each node for Ray's tasks and actors; 0: none run there, as on a head node.
        gpus: of each node.
    """

    name: str
    count: int
    cores: int
    gpus: int = 0


def parse_shape(text: str) -> tuple[Nodes, ...]:
    """The node types of `NAME=NODESxCORES` or `NAME=NODESxCORESxGPUS`, separated by commas.

    Raises:
        ValueError: the text has another form, repeats a name, or names a type without nodes.
    """
    parts = [part.strip() for part in text.split(",")]
    matches = [NODES.fullmatch(part) for part in parts]
    for part, match in zip(parts, matches, strict=True):
        require(
            match is not None,
            f"--cluster has {part!r}; expected NAME=NODESxCORES or NAME=NODESxCORESxGPUS, "
            f"separated by commas, such as {EXAMPLE}",
        )
    shape = tuple(
        Nodes(match[1], int(match[2]), int(match[3]), int(match[4] or 0))
        for match in matches
        if match
    )
    names = [nodes.name for nodes in shape]
    require(len({*names}) == len(names), f"--cluster is {text!r}; expected each name once")
    for nodes in shape:
        require(nodes.count >= 1, f"--cluster has no node of type {nodes.name}; leave it out")
    require(
        any(nodes.cores for nodes in shape),
        f"--cluster is {text!r}, whose nodes have no cores; expected some, such as {EXAMPLE}",
    )
    return shape


def parse_prices(texts: Sequence[str], shape: Sequence[Nodes]) -> dict[str, float]:
    """Price of a node per hour by the name of its type, from `NAME=PRICE`.

    Raises:
        ValueError: a text has another form, or names no type of the shape.
    """
    prices: dict[str, float] = {}
    names = [nodes.name for nodes in shape]
    for text in texts:
        name, _, number = text.partition("=")
        try:
            price = float(number)
        except ValueError:
            price = math.nan
        require(
            price >= 0 and math.isfinite(price),
            f"--prices has {text!r}; expected NAME=PRICE of a node per hour, as in {names[0]}=0.5",
        )
        require(name in names, f"--prices names {name!r}; expected a type of --cluster: {names}")
        require(name not in prices, f"--prices has {name!r} twice; expected one price per type")
        prices[name] = price
    return prices


def node_price(prices: Mapping[str, float], used: Mapping[str, int]) -> float | None:
    """Price of some nodes per hour; None if that of one of them is not known."""
    if not prices or any(name not in prices for name in used):
        return None
    return sum(prices[name] * count for name, count in used.items())
