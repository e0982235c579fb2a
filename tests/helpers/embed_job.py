"""Workspaces that are ready to be embedded, and a job that writes down which rows it embeds.

Run `python -m tests.helpers.embed_job embed ...` in place of `ampere embed ...`.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import ray
import torch

from ampere.cli import main
from ampere.config.embed import EmbedSettings
from ampere.models.model_folder import SETTINGS_FILE
from ampere.pipeline import embed
from ampere.records import FRAMES, SAMPLES
from ampere.store.workspace import Workspace
from ampere.training.loop import TrainJob, build_model
from tests.helpers.training import small_set

LOG = "embedded_rows"  # file of the workspace that the actors append to


def fill(workspace: Workspace, products: int) -> None:
    """Add training products with two samples in each domain, and their frames."""
    training_set, frames = small_set(products)
    workspace.table(SAMPLES).append(
        [
            {"sample_id": sample_id, "product_id": product, "domain": domain, "split": "train"}
            | {"text": training_set.texts[sample_id]}
            for product, domains in training_set.products.items()
            for domain, sample_ids in domains.items()
            for sample_id in sample_ids
        ]
    )
    workspace.table(FRAMES).append(
        [
            {"sample_id": sample_id, "fingerprint": "f", "frames": jpegs}
            for sample_id, jpegs in frames.frames.items()
        ]
    )


def save_model(workspace: Workspace, job: TrainJob) -> Path:
    """Save a network with random weights as model `m`."""
    torch.manual_seed(0)
    folder = Path(workspace.uri) / "models" / "m"
    build_model(job).save_pretrained(folder, job.tokenizer)
    (folder / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "raw"}}))
    return folder


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
