"""How fast training is: the full-size step beside a bare matrix product, the page way, and Ray Train beside torchrun.

    python benchmarks/train.py step [--device cuda] [--products 64]
    python benchmarks/train.py ray [--steps 60]

`step` needs neither Ray nor vLLM nor Lance. It makes forward, losses, backward and update of the full-size network
(random weights and frames) in bfloat16, and prints the share of the rate of a bare product of the same type, and the
time of a step whose pages go through the frame tower once over one whose pages go through it eight times.

`ray` trains the demo's network on two ranks by Ray Train and by torchrun's way, two gloo processes, on the same frames;
it prints samples per second of both, start apart, and their ratio.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ampere.config import PRESETS, ModelSettings, TrainSettings
from ampere.losses.partial_fc import PartialFC
from ampere.media.images import encode_jpeg
from ampere.models.tokenizer import build_tokenizer
from ampere.records import Domain
from ampere.training.data import Batch, TrainingSet
from ampere.training.loop import Training, TrainJob, build_model, build_optimizers
from ampere.training.step import ProductModel, Step

CLASSES = 10_000
TEXT = "云岚薄荷控油洗发水 去屑 不刺激 五百毫升"


def random_batch(products: int, sizes: ModelSettings, *, page_frames: int) -> Batch:
    """Products with a page, a short and a live of random pixels."""
    frames = {}
    for domain in Domain:
        count = page_frames if domain is Domain.PAGE else sizes.num_frames
        shape = (products, 1 if domain is Domain.PAGE else count, 3, sizes.image_size, sizes.image_size)
        frames[domain] = torch.randint(0, 256, shape, dtype=torch.uint8).expand(-1, count, -1, -1, -1)
    return Batch(
        frames=frames,
        texts={domain: [TEXT] * products for domain in Domain},
        present={domain: torch.ones(products, dtype=torch.bool) for domain in Domain},
        labels=torch.randint(0, CLASSES, (products,)),
    )


def seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    """Median time of a call after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def bare_rate(device: str, repeats: int) -> float:
    """FLOP/s of a bare square product of bfloat16."""
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, repeats, device)


def step_benchmark(device: str, products: int, repeats: int) -> None:
    sizes = ModelSettings()
    settings = TrainSettings(bf16=True, gpus=1.0 if device == "cuda" else 0.0)
    tokenizer = build_tokenizer([TEXT])
    job = TrainJob(training_set=TrainingSet(products={}, texts={}), tokenizer=tokenizer, model=sizes, train=settings)
    model = build_model(job).to(device)
    classifier = PartialFC(CLASSES, sizes.embedding_dim).to(device)
    optimizers = build_optimizers(model, classifier, settings)
    step = Step(ProductModel(model), classifier, tokenizer, settings, device=torch.device(device))

    def run(batch: Batch) -> None:
        step.backward(batch, seed=0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    once, eight = (random_batch(products, sizes, page_frames=count) for count in (1, sizes.num_frames))
    with FlopCounterMode(display=False) as counter:
        run(once)
    fast, slow = (seconds(lambda b=batch: run(b), repeats, device) for batch in (once, eight))
    rate, bare = counter.get_total_flops() / fast, bare_rate(device, repeats)
    print(f"{device} bfloat16, {products} products a step: {3 * products / fast:.2f} samples/s")
    print(f"share of a bare product  {rate / bare:8.1%} of {bare / 1e12:.2f} TFLOP/s")
    print(f"pages eight times / once {slow / fast:8.2f}x the time of a step")


@dataclasses.dataclass
class RandomFrames:
    """A FrameSource of a few pictures, the same for all samples."""

    jpegs: list[bytes]
    num_frames: int

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        return [self.jpegs[:1] if name.startswith("page") else self.jpegs for name in sample_ids]


def ray_job(steps: int) -> tuple[TrainJob, RandomFrames]:
    settings = PRESETS["demo"]()
    products = {f"{i}": {d: [f"{d}-{i}-{copy}" for copy in range(2)] for d in Domain} for i in range(64)}
    texts = {name: TEXT for domains in products.values() for ids in domains.values() for name in ids}
    train = dataclasses.replace(
        settings.train,
        epochs=max(1, steps // 2),
        batch_size=32,
        workers=2,
        log_every=5,
        checkpoint_every=0,
        trackers=(),
    )
    rng = np.random.default_rng(0)
    from PIL import Image

    pictures = [Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((96, 72)) for _ in range(8)]
    frames = RandomFrames([encode_jpeg(picture, 90) for picture in pictures], settings.model.num_frames)
    job = TrainJob(
        training_set=TrainingSet(products=products, texts=texts), tokenizer=build_tokenizer([TEXT]),
        model=settings.model, train=train,
    )  # fmt: skip
    return job, frames


def on_rank(rank: int, folder: str, steps: int) -> None:
    import json
    import os

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    training = Training(*ray_job(steps))
    training.run(lambda _: None)
    if rank == 0:
        (Path(folder) / "history.json").write_text(json.dumps(training.history))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def ray_benchmark(steps: int) -> None:
    import json

    from ampere.pipeline.trackers import Progress
    from ampere.pipeline.train import train_on_ray

    job, frames = ray_job(steps)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(on_rank, args=(folder, steps), nprocs=2)
        plain = json.loads((Path(folder) / "history.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        progress = Progress(job, None)
        (Path(folder) / "model").mkdir()
        train_on_ray(job, frames, f"{folder}/runs", "benchmark", progress, Path(folder) / "model")  # type: ignore[arg-type]
    rates = {}
    for name, history in (("torchrun", plain), ("Ray Train", progress.history)):
        times = [row["seconds_per_step"] for row in history[1:]]
        waiting = statistics.mean(row["waiting_share"] for row in history[1:])
        rates[name] = 3 * job.train.batch_size / statistics.median(times)
        print(f"{name:<10} {rates[name]:8.1f} samples/s, start apart; waiting for data {waiting:.1%}")
    print(f"Ray Train / torchrun {rates['Ray Train'] / rates['torchrun']:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("step", "ray"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--products", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    if args.part == "step":
        step_benchmark(args.device, args.products, args.repeats)
    else:
        ray_benchmark(args.steps)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
