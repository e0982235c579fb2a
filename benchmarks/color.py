"""Evaluate color histograms on the six tasks: hue, saturation and value of the test samples.

    python benchmarks/color.py --workspace WORKSPACE

A baseline for models trained without pretrained weights: they should do better.
"""

import argparse
import io
from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from ampere.records import FRAMES, SAMPLES, Domain, Split
from ampere.retrieval.evaluation import evaluate_tasks, mean_recall
from ampere.retrieval.metrics import Vectors
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace

BINS = (16, 4, 4)  # of hue, saturation, value
MARGIN = 1 / 6  # of an image's width and height, ignored on each side


def color_vector(jpegs: Sequence[bytes]) -> NDArray[np.float32]:
    """Return a sample's color vector, float32 [256], of length 1.

    It is the mean over the frames of the square roots of their histograms.
    """
    mean = np.mean([np.sqrt(histogram(jpeg)) for jpeg in jpegs], axis=0)
    return (mean / np.linalg.norm(mean)).astype(np.float32)


def histogram(jpeg: bytes) -> NDArray[np.float64]:
    """Return the share of pixels in each bin in the middle of an image, float64 [256]."""
    image = Image.open(io.BytesIO(jpeg)).convert("HSV")
    left, top = round(image.width * MARGIN), round(image.height * MARGIN)
    middle = image.crop((left, top, image.width - left, image.height - top))
    pixels = np.asarray(middle).reshape(-1, 3)
    counts, _ = np.histogramdd(pixels, BINS, [(0, 256)] * 3)
    return counts.ravel() / len(pixels)


def main() -> int:
    """Print R@1 of each task and mR1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", required=True)
    args = parser.parse_args()

    workspace = Workspace.open(args.workspace)
    decoded = set(workspace.table(FRAMES).read(["sample_id"])["sample_id"].to_pylist())
    rows = (
        workspace.table(SAMPLES)
        .read(["sample_id", "product_id", "domain"], pc.field("split") == Split.TEST)
        .to_pylist()
    )
    rows = [row for row in rows if row["product_id"] is not None and row["sample_id"] in decoded]
    vectors = np.stack(
        [
            color_vector(jpegs)
            for jpegs in LanceFrames(workspace).take([row["sample_id"] for row in rows])
        ]
    )
    domains, products = (np.array([row[name] for row in rows]) for name in ("domain", "product_id"))
    results = evaluate_tasks(
        {d: Vectors(vectors=vectors[domains == d], products=products[domains == d]) for d in Domain}
    )
    print("  ".join(f"{task} {result.means()['R1']:.1f}" for task, result in results.items()))
    chance = np.mean([result.chance for result in results.values()])
    print(f"mR1 of color histograms {mean_recall(results):.1f}, chance {chance:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
