"""Measures how fast training is.

    python benchmarks/train.py step [--device cuda] [--products 64]
    python benchmarks/train.py features [--products 8]
    python benchmarks/train.py ray [--steps 60] [--rounds 3] [--ranks 2]

`step` needs neither Ray nor vLLM nor Lance. It runs forward pass, losses, backward pass and update
of the full-size network (random weights and frames) in bfloat16. It prints the rate as a fraction
of that of a bare matrix product of the same type. It also prints how much longer a step takes if
pages pass the frame tower eight times instead of once.

`features` compares steps of the preset small: on the stored features of its frozen tower, and end
to end, where pictures are decoded, cropped and encoded by the tower, which is not trained.

`ray` trains a small network from scratch with Ray Train and with torchrun, on the same Lance table
of frames. It prints the samples per second of both (without the start), their ratio, and the
fraction of a step that waits for data. Ray's own dozen processes take a tenth of a core together:
time that the ranks lose if there are as many ranks as cores, and do not lose with one spare core.
"""

import argparse
import functools
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bars import check_bars
from PIL import Image
from rates import bare_product, seconds
from torch.utils.flop_counter import FlopCounterMode

from ampere.config.model import ModelSettings
from ampere.config.systems import named_settings
from ampere.config.train import TrainSettings
from ampere.huge_pages import use_huge_pages
from ampere.losses.partial_fc import PartialFC
from ampere.media.images import encode_jpeg
from ampere.models.tokenizer import build_tokenizer
from ampere.records import Domain
from ampere.training.data import Batch, FrameSource, TrainingSet
from ampere.training.loop import Training, TrainJob, build_model, build_optimizers
from ampere.training.step import ProductModel, Step

CLASSES = 10_000
PRODUCTS, BATCH = 64, 32
GPU_SHARE = 0.45  # of a bare product's rate: the bar for a step on a GPU
# Small enough that what surrounds a step weighs against the step.
SMALL = ModelSettings(
    image_size=64,
    vision_width=128,
    vision_layers=3,
    vision_heads=4,
    message_width=128,
    text_width=128,
    text_layers=2,
    text_heads=4,
    width=128,
    heads=4,
    mlp_width=256,
    temporal_layers=1,
    fusion_layers=2,
)
TEXT = "云岚薄荷控油洗发水 去屑 不刺激 五百毫升"


def random_batch(products: int, sizes: ModelSettings, *, page_frames: int) -> Batch:
    """Products with a page, a short and a live of random pixels."""
    frames = {}
    for domain in Domain:
        count = page_frames if domain is Domain.PAGE else sizes.num_frames
        shape = (
            products,
            1 if domain is Domain.PAGE else count,
            3,
            sizes.image_size,
            sizes.image_size,
        )
        frames[domain] = torch.randint(0, 256, shape, dtype=torch.uint8).expand(
            -1, count, -1, -1, -1
        )
    return Batch(
        frames=frames,
        texts={domain: [TEXT] * products for domain in Domain},
        has_frames={domain: torch.ones(products, dtype=torch.bool) for domain in Domain},
        present={domain: torch.ones(products, dtype=torch.bool) for domain in Domain},
        labels=torch.randint(0, CLASSES, (products,)),
    )


def step_benchmark(device: str, products: int, repeats: int) -> int:
    """Run `step`, and return the exit status."""
    sizes = ModelSettings()
    settings = TrainSettings(bf16=True, gpus=1.0 if device == "cuda" else 0.0)
    tokenizer = build_tokenizer([TEXT])
    job = TrainJob(
        training_set=TrainingSet(products={}, texts={}),
        tokenizer=tokenizer,
        model=sizes,
        train=settings,
    )
    model = build_model(job).to(device)
    classifier = PartialFC(CLASSES, sizes.embedding_dim).to(device)
    optimizers = build_optimizers(model, classifier, settings)
    step = Step(ProductModel(model), classifier, tokenizer, settings, device=torch.device(device))

    def run(batch: Batch) -> None:
        step.backward(batch, seed=0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    once, eight = (
        random_batch(products, sizes, page_frames=count) for count in (1, sizes.num_frames)
    )
    with FlopCounterMode(display=False) as counter:
        run(once)
    product, flop = bare_product(device, torch.bfloat16)
    fast, slow, product_s = seconds(device, repeats, lambda: run(once), lambda: run(eight), product)
    rate, bare = counter.get_total_flops() / fast, flop / product_s
    print(f"{device} bfloat16, {products} products a step: {3 * products / fast:.2f} samples/s")
    print(f"{rate / bare:.1%} of a bare product's {bare / 1e12:.2f} TFLOP/s")
    print(f"pages eight times / once {slow / fast:.2f}x the time of a step")
    return (
        check_bars(("share of the bare product's rate", rate / bare, GPU_SHARE))
        if device == "cuda"
        else 0
    )


@functools.cache
def picture(name: str) -> bytes:
    """Make a JPEG of colored squares that depend on the name."""
    pixels = random.Random(name).randbytes(32 * 32 * 3)
    return encode_jpeg(Image.frombytes("RGB", (32, 32), pixels).resize((256, 256)), 90)


class Pictures:
    """A `FrameSource` with one picture per sample, made from its name."""

    def take(self, sample_ids: list[str]) -> list[list[bytes]]:
        """Read JPEG frames: one of a page, four of a clip."""
        counts = [1 if name.startswith("page") else 4 for name in sample_ids]
        return [[picture(name)] * count for name, count in zip(sample_ids, counts, strict=True)]


class Features:
    """A `FeatureSource` of the same samples."""

    def take_features(self, sample_ids: list[str]) -> list:
        """Read random features."""
        generator = torch.Generator().manual_seed(0)
        count = {name: 1 if name.startswith("page") else 4 for name in sample_ids}
        return [
            torch.rand(count[name], 1280, generator=generator).half().numpy() for name in sample_ids
        ]


def features_benchmark(products: int, repeats: int) -> int:
    """Run `features`, and return the exit status."""
    settings = named_settings("small")
    ids = {f"{i}": {domain: [f"{domain}-{i}"] for domain in Domain} for i in range(products)}
    texts = {name: TEXT for row in ids.values() for names in row.values() for name in names}
    job = TrainJob(
        training_set=TrainingSet(products=ids, texts=texts),
        tokenizer=build_tokenizer([TEXT]),
        model=settings.model,
        train=settings.train,
    )

    def step_of(frames: FrameSource | Features) -> Callable[[], object]:
        training = Training(job, frames)
        return lambda: training.step.backward(training.batches[0], 0)

    stored, end_to_end = seconds("cpu", repeats, step_of(Features()), step_of(Pictures()))
    samples = 3 * products
    print(f"on stored features: {samples / stored:.1f} samples/s, {stored:.3f} s a step")
    print(f"end to end: {samples / end_to_end:.1f} samples/s, {end_to_end:.3f} s a step")
    return check_bars(("steps/s on stored features / end to end", end_to_end / stored, 5.0))


def ray_job(steps: int, ranks: int, loader_workers: int) -> TrainJob:
    """A job of a small network on PRODUCTS products, about `steps` steps long."""
    products = {
        f"{i}": {d: [f"{d}-{i}-{copy}" for copy in range(2)] for d in Domain}
        for i in range(PRODUCTS)
    }
    texts = {
        name: TEXT for domains in products.values() for ids in domains.values() for name in ids
    }
    train = TrainSettings(
        epochs=max(1, steps * BATCH // PRODUCTS),
        batch_size=BATCH,
        workers=ranks,
        loader_workers=loader_workers,
        log_every=5,
        checkpoint_every=0,
        validation_share=0.0,
        trackers=(),
    )
    return TrainJob(
        training_set=TrainingSet(products=products, texts=texts),
        tokenizer=build_tokenizer([TEXT]),
        model=SMALL,
        train=train,
    )


def stored_frames(folder: Path, job: TrainJob) -> Any:
    """A Lance table of random images for all samples of a job, as a `LanceFrames`."""
    from ampere.records import FRAMES
    from ampere.store.frames import LanceFrames
    from ampere.store.workspace import Workspace

    rng, rows = np.random.default_rng(0), []
    for sample_id in job.training_set.texts:
        count = 1 if sample_id.startswith("page") else job.model.num_frames
        pixels = rng.integers(0, 256, (count, 12, 9, 3), dtype=np.uint8)
        jpegs = [encode_jpeg(Image.fromarray(frame).resize((96, 128)), 90) for frame in pixels]
        rows.append({"sample_id": sample_id, "fingerprint": "f", "frames": jpegs})
    workspace = Workspace.create(folder, "small")
    workspace.table(FRAMES).append(rows)
    return LanceFrames(workspace)


def on_rank(folder: str, steps: int, loader_workers: int) -> None:
    """Train on one process of torchrun."""
    from ampere.store.frames import LanceFrames
    from ampere.store.workspace import Workspace

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    job = ray_job(steps, torch.distributed.get_world_size(), loader_workers)
    training = Training(job, LanceFrames(Workspace.open(f"{folder}/workspace")))
    training.run(lambda _: None)
    if torch.distributed.get_rank() == 0:
        (Path(folder) / "history.json").write_text(json.dumps(training.history))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def by_torchrun(folder: str, steps: int, ranks: int, loader_workers: int) -> list[Any]:
    """The metrics of a training under torchrun, except the first, which include the start."""
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(ranks),
    ]
    script = [
        __file__,
        "rank",
        "--folder",
        folder,
        "--steps",
        str(steps),
        "--loader-workers",
        str(loader_workers),
    ]
    subprocess.run([*torchrun, *script], check=True)
    return json.loads((Path(folder) / "history.json").read_text())[1:]


def by_ray(job: TrainJob, frames: Any, folder: Path) -> list[Any]:
    """The metrics of a training under Ray Train, except the first, which include the start."""
    import ray

    from ampere.pipeline.train.ray_train import train_on_ray
    from ampere.pipeline.train.trackers import Progress
    from ampere.pipeline.train.worker import TrainInputs

    progress = Progress(job, None)
    model = folder / "model"
    model.mkdir(parents=True)
    inputs = TrainInputs(job=job, frames=frames)
    train_on_ray(inputs, progress, storage=f"{folder}/runs", run="benchmark", folder=model)
    ray.shutdown()
    return progress.history[1:]


def ray_benchmark(steps: int, rounds: int, ranks: int, loader_workers: int) -> int:
    """Run `ray`, and return the exit status.

    The two alternate, because the machine's speed varies over time. Ray is shut down in between.
    """
    job = ray_job(steps, ranks, loader_workers)
    histories: dict[str, list[Any]] = {"torchrun": [], "Ray Train": []}
    with tempfile.TemporaryDirectory() as folder:
        frames = stored_frames(Path(folder) / "workspace", job)
        for number in range(rounds):
            histories["torchrun"] += by_torchrun(folder, steps, ranks, loader_workers)
            histories["Ray Train"] += by_ray(job, frames, Path(folder) / f"round-{number}")
    rates, working = {}, {}
    for name, history in histories.items():
        working[name] = 1 - statistics.mean(row["waiting_share"] for row in history)
        rates[name] = 3 * BATCH / statistics.median(row["seconds_per_step"] for row in history)
        rate, waiting = f"{rates[name]:8.1f} samples/s", f"{1 - working[name]:.1%}"
        print(f"{name:<10} {rate} without the start; waiting for data {waiting}")
    return check_bars(
        ("samples/s under Ray Train over torchrun", rates["Ray Train"] / rates["torchrun"], 0.97),
        ("fraction of a step that does not wait for data", working["Ray Train"], 0.95),
    )


def main() -> int:
    """Parse the command line, and run a benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "part", choices=("step", "features", "ray", "rank"), help="rank: internal, run by torchrun"
    )
    parser.add_argument("--folder", help="rank: working folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--products", type=int, help="of a step; default: 2, features: 8")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument(
        "--loader-workers",
        type=int,
        default=0,
        help="ray: loader processes per rank; 0: one thread",
    )
    parser.add_argument("--rounds", type=int, default=3, help="ray: trainings of each kind")
    parser.add_argument("--ranks", type=int, default=2, help="ray: processes that train together")
    args = parser.parse_args()
    use_huge_pages()
    if args.part == "step":
        return step_benchmark(args.device, args.products or 2, args.repeats)
    if args.part == "features":
        return features_benchmark(args.products or 8, args.repeats)
    if args.part == "ray":
        return ray_benchmark(args.steps, args.rounds, args.ranks, args.loader_workers)
    on_rank(args.folder, args.steps, args.loader_workers)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
