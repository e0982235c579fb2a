"""How fast the full-size model embeds clips and pages, and what the page way brings.

    python benchmarks/embed.py --device cpu --dtype bfloat16 --batch 2 --repeats 3

Needs torch, transformers and numpy alone. Weights are random: speed does not depend on them. Prints clips/s, pages/s
by one pass of the frame tower, pages/s by eight, the two ratios, and the share of the rate of a bare matrix product
in the same run and type. FLOP are those of the frame tower's and the blocks' matrix products, counted by torch.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from ampere.config import ModelSettings
from ampere.models.ampere import AMPere, AMPereConfig

BERT_VOCABULARY = 21128


def seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    """Median time of a call after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


def product_rate(device: str, dtype: torch.dtype, repeats: int) -> float:
    """FLOP/s of a bare square matrix product."""
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, repeats, device)


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
    def embed(frames: torch.Tensor) -> torch.Tensor:
        with torch.autocast(args.device, dtype=dtype, enabled=dtype is not torch.float32):
            return model(frames, ids, mask)

    pages = clips[:, :1]
    with FlopCounterMode(display=False) as counter:
        embed(clips)
    clip_s = seconds(lambda: embed(clips), args.repeats, args.device) / args.batch
    page_s = seconds(lambda: embed(pages), args.repeats, args.device) / args.batch
    eight_s = seconds(lambda: embed(pages.expand(shape)), args.repeats, args.device) / args.batch
    bare = product_rate(args.device, dtype, args.repeats)
    rate = counter.get_total_flops() / args.batch / clip_s
    print(f"{args.device} {args.dtype} batch {args.batch}: {1 / clip_s:.2f} clips/s, {1 / page_s:.2f} pages/s")
    print(f"pages by one pass over by eight: {eight_s / page_s:.2f}x; pages/s over clips/s: {clip_s / page_s:.2f}x")
    print(f"share of a bare {args.dtype} product: {rate / bare:.1%} of {bare / 1e12:.2f} TFLOP/s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
