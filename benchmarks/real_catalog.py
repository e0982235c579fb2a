"""Measure presets with a frozen vision tower on a real catalog, as the mean of several seeds.

    ampere prepare --workspace W --rope shared/data/grocery && ampere decode --workspace W
    python benchmarks/real_catalog.py W --presets small small+visual small+zero-shot

Each preset is trained on the training products and evaluated on the test products, in this process,
without Ray. Features are stored in the workspace, as `ampere train` and `ampere embed` store them.
Exits with 1 if the first preset's mR1 is below `--bar`.
"""

import argparse
import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
import torch
from bars import check_bars

from ampere.config.embed import EmbedSettings
from ampere.config.systems import named_settings
from ampere.models.embedder import embed_pixels
from ampere.models.networks import frozen_tower, resolve_vision
from ampere.pipeline.embed import read_pixels
from ampere.pipeline.features import FeatureBatch, FeaturesStage
from ampere.pipeline.train.stage import read_training_set, tokenizer_for
from ampere.records import FEATURES, SAMPLES, Domain, Split
from ampere.retrieval.evaluation import Results, evaluate_tasks, mean_recall, mr1_interval
from ampere.retrieval.metrics import Vectors
from ampere.store.features import LanceFeatures
from ampere.store.frames import LanceFrames
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace
from ampere.training.data import TrainingSet
from ampere.training.loop import Training, TrainJob, build_model

BATCH = 32


def main() -> int:
    """Run the benchmark; return 1 if the bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workspace")
    parser.add_argument("--presets", nargs="+", default=["small"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bar", type=float, default=88.0)
    args = parser.parse_args()
    torch.set_num_threads(2)
    workspace, means = Workspace.open(args.workspace), []
    for preset in args.presets:
        seeds = range(1 if preset.endswith("+zero-shot") else args.seeds)
        start = time.perf_counter()
        runs = [measure(workspace, preset, seed) for seed in seeds]
        scores = [mean_recall(results) for results in runs]
        low, high = mr1_interval(runs)
        means.append(float(np.mean(scores)))
        print(
            f"{preset}: mR1 {means[-1]:.1f} ({low:.1f} to {high:.1f}) of seeds "
            f"{', '.join(f'{score:.1f}' for score in scores)}; "
            f"{(time.perf_counter() - start) / len(runs):.0f} s a seed",
            flush=True,
        )
    return check_bars((f"mR1 of {args.presets[0]}", means[0], args.bar))


def measure(workspace: Workspace, preset: str, seed: int) -> Results:
    """Train a preset with one seed, and evaluate it on the test products."""
    settings = named_settings(preset)
    train = dataclasses.replace(settings.train, seed=seed)
    features = store_features(workspace, preset)
    decoded = set(features.positions)
    training_set = (
        read_training_set(workspace, decoded, train)
        if train.epochs
        else TrainingSet(products={}, texts={})
    )
    job = TrainJob(
        training_set=training_set,
        tokenizer=tokenizer_for(training_set, settings.model, None),
        model=settings.model,
        train=train,
    )
    if train.epochs:
        model = Training(job, features).run(lambda metrics: None).model
    else:
        model = build_model(job).eval()
    rows = workspace.table(SAMPLES).read(
        ["sample_id", "product_id", "domain"], pc.field("split") == Split.TEST
    )
    rows = [row for row in rows.to_pylist() if row["sample_id"] in decoded]
    ids = [row["sample_id"] for row in rows]
    domains = [Domain(row["domain"]) for row in rows]
    vectors = embed_pixels(
        model,
        job.tokenizer if model.reads_text else None,
        features.take_features(ids),
        texts_of(workspace, train.text, ids).to_pylist(),
        domains,
    )
    products = np.array([row["product_id"] for row in rows])
    return evaluate_tasks(by_domain(vectors, products, domains))


def by_domain(
    vectors: np.ndarray, products: np.ndarray, domains: Sequence[Domain]
) -> dict[Domain, Vectors]:
    """Group the vectors by domain."""
    of = np.array(domains)
    return {
        domain: Vectors(vectors=vectors[of == domain], products=products[of == domain])
        for domain in Domain
    }


def store_features(workspace: Workspace, preset: str) -> LanceFeatures:
    """Store the features of all samples that lack them, and open them."""
    model, _ = resolve_vision(named_settings(preset).model)
    tower = frozen_tower(model)
    stage = FeaturesStage(
        workspace, tower, model, model.image_size, EmbedSettings(batch_size=BATCH), view=model.view
    )
    rows = stage.plan(workspace).rows_to_process(retry_failed=True)
    actor, start = None, time.perf_counter()
    for at in range(0, rows.num_rows, BATCH):
        actor = actor or FeatureBatch(workspace.uri, model, model.image_size, stage.settings)
        pixels = read_pixels(
            rows.slice(at, BATCH), stage.frames.uri, stage.frames.version, model.image_size,
            model.view,
        )  # fmt: skip
        workspace.table(FEATURES).upsert(actor(pixels))
    if rows.num_rows:
        seconds = time.perf_counter() - start
        print(f"features of {rows.num_rows} samples in {seconds:.0f} s", flush=True)
    return LanceFeatures(workspace, tower, LanceFrames(workspace))


if __name__ == "__main__":
    raise SystemExit(main())
