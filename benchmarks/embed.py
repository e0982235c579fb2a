"""How fast the full-size model embeds clips and pages, over a plain loop, and what the page way brings.

    python benchmarks/embed.py --device cpu --dtype bfloat16 --batch 2 --repeats 3

Needs torch, transformers and numpy alone. Weights are random: speed does not depend on them. The plain loop is what one
writes first: the same network with its weights in the type, eager attention, a clip at a time. FLOP are those of matrix
products, counted by torch; the bare product's rate is taken in the same run and type.
"""

import argparse
import copy
from collections.abc import Callable

import torch
from bars import judge
from rates import product_rate, seconds
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ampere.config import ModelSettings
from ampere.models.ampere import AMPere, AMPereConfig

BERT_VOCABULARY = 21128
BARS = {"cpu": 0.45, "cuda": 0.55}  # share of a bare product's rate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

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

    pages = clips[:, :1]
    with FlopCounterMode(display=False) as counter:
        embed(clips)
    clip_s = seconds(lambda: embed(clips), args.repeats, args.device) / args.batch
    page_s = seconds(lambda: embed(pages), args.repeats, args.device) / args.batch
    eight_s = seconds(lambda: embed(pages.expand(shape)), args.repeats, args.device) / args.batch
    bare = product_rate(args.device, dtype, args.repeats)
    share = counter.get_total_flops() / args.batch / clip_s / bare
    same, exact = (plain_loop(model, kind, clips, ids, mask) for kind in (dtype, torch.float32))
    same_s, exact_s = (seconds(loop, args.repeats, args.device) / args.batch for loop in (same, exact))
    cosine = float(functional.cosine_similarity(embed(clips), exact()).min())
    print(f"{args.device} {args.dtype} batch {args.batch}: {1 / clip_s:.2f} clips/s, {1 / page_s:.2f} pages/s")
    print(f"plain loop: {1 / same_s:.2f} clips/s in {args.dtype}, {1 / exact_s:.2f} in float32")
    print(f"pages by one pass over by eight: {eight_s / page_s:.2f}x")
    print(f"bare {args.dtype} product: {bare / 1e12:.2f} TFLOP/s")
    return judge(
        (f"clips/s over the plain loop in {args.dtype}", same_s / clip_s, 1.4),
        ("clips/s over the plain loop in float32", exact_s / clip_s, 5.0),
        ("pages/s over clips/s", clip_s / page_s, 6.0),
        ("share of the bare product's rate", share, BARS[args.device]),
        ("least cosine to the float32 vectors", cosine, 0.999),
    )


def plain_loop(model: AMPere, dtype: torch.dtype, clips: Tensor, ids: Tensor, mask: Tensor) -> Callable[[], Tensor]:
    """A call that embeds the clips one by one with eager attention and weights of a type."""
    plain = copy.deepcopy(model).to(dtype)
    for tower in (plain.video.tower, plain.text):
        tower.set_attn_implementation("eager")

    @torch.inference_mode()
    def run() -> Tensor:
        return torch.cat([plain(clips[i : i + 1], ids[i : i + 1], mask[i : i + 1]) for i in range(len(clips))])

    return run


if __name__ == "__main__":
    raise SystemExit(main())
