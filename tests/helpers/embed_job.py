"""A job that writes down which rows it embeds.

Run `python -m tests.helpers.embed_job embed ...` in place of `ampere embed ...`.
"""

import sys
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import ray

from ampere.cli import main
from ampere.config.embed import EmbedSettings
from ampere.pipeline import embed
from ampere.store.workspace import Workspace

LOG = "embedded_rows"  # file of the workspace that the actors append to


class EmbedBatch(embed.EmbedBatch):
    """The actor of the stage, with a line for each row that it begins to embed."""

    def __init__(self, uri: str, name: str, settings: EmbedSettings) -> None:
        super().__init__(uri, name, settings)
        self.log = Path(uri) / LOG

    def __call__(self, batch: pa.Table) -> pa.Table:
        node = ray.get_runtime_context().get_node_id()
        lines = "".join(f"{node} {sample_id}\n" for sample_id in batch["sample_id"].to_pylist())
        with self.log.open("a") as log:
            log.write(lines)
        return super().__call__(batch)


def nodes_of_rows(workspace: Workspace) -> dict[str, list[str]]:
    """Sample id -> the nodes whose actors began to embed it, in order."""
    nodes, log = defaultdict(list), Path(workspace.uri) / LOG
    for line in log.read_text().splitlines() if log.exists() else ():
        node, sample_id = line.split()
        nodes[sample_id].append(node)
    return nodes


if __name__ == "__main__":
    # From the module that the actors import, not from this one, which is `__main__`.
    from tests.helpers.embed_job import EmbedBatch as Logged

    embed.EmbedBatch = Logged
    sys.exit(main(sys.argv[1:]))
