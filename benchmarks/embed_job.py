"""Compare the embed job on one actor with its bare model, in clips per second.

    python benchmarks/embed_job.py [--clips 48] [--batch 8] [--float32] [--compile]
                                   [--workers MIN:MAX]

The network has full size and random weights, runs on one thread, and embeds clips of random frames.
The job is timed from its first results to its last, which excludes the start of Ray and of the
actor. The bare model gets decoded pixels. With several workers the bare model is still one; the
job's line on its pool shows whether the pool grew.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bars import check_bars
from PIL import Image

from ampere.cluster import connect
from ampere.config.embed import EmbedSettings
from ampere.config.model import ModelSettings
from ampere.huge_pages import use_huge_pages
from ampere.media.images import encode_jpeg, model_input
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.embedder import Embedder
from ampere.models.model_folder import SETTINGS_FILE
from ampere.models.tokenizer import build_tokenizer
from ampere.pipeline.embed import EmbedStage
from ampere.pipeline.runner.run import run_stage
from ampere.records import FRAMES, SAMPLES, Domain
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace

TEXT = "云岚薄荷控油洗发水 去屑 不刺激 五百毫升"


def filled_workspace(folder: Path, clips: int) -> Workspace:
    """Return a workspace with clips of random frames and a model `full` of random weights."""
    workspace = Workspace.create(folder, "rope")
    rng, sizes = np.random.default_rng(0), ModelSettings()
    for i in range(clips):
        pixels = rng.integers(0, 256, (sizes.num_frames, 32, 18, 3), dtype=np.uint8)
        jpegs = [encode_jpeg(Image.fromarray(frame).resize((256, 455)), 90) for frame in pixels]
        sample = {
            "sample_id": f"s{i}",
            "product_id": f"p{i}",
            "domain": Domain.SHORT,
            "split": "test",
            "text": TEXT,
        }
        workspace.table(SAMPLES).append([sample])
        workspace.table(FRAMES).append(
            [{"sample_id": f"s{i}", "fingerprint": "f", "frames": jpegs}]
        )
    tokenizer = build_tokenizer([TEXT])
    model = Path(workspace.uri) / "models" / "full"
    AMPere(AMPereConfig(sizes=sizes, vocab_size=len(tokenizer), pad_token_id=0)).save_pretrained(
        model, tokenizer
    )
    (model / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "raw"}}))
    return workspace


def bare_rate(workspace: Workspace, settings: EmbedSettings, clips: int) -> float:
    """Return the clips per second of the network alone."""
    torch.set_num_threads(1)
    fixed = settings.batch_size if settings.compile else None
    embedder = Embedder(
        Path(workspace.uri) / "models" / "full", bf16=settings.bf16, fixed_batch_size=fixed
    )
    stored = LanceFrames(workspace).take([f"s{i}" for i in range(clips)])
    model = embedder.model
    pixels = [model_input(jpegs, model.image_size, model.view) for jpegs in stored]
    (embedder.compile if settings.compile else embedder.warm_up)()
    start = time.perf_counter()
    for at in range(0, clips, settings.batch_size):
        batch = pixels[at : at + settings.batch_size]
        embedder.embed_pixels(batch, [TEXT] * len(batch), [Domain.SHORT] * len(batch))
    return clips / (time.perf_counter() - start)


def main() -> int:
    """Run the benchmark; return 1 if the bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--float32", action="store_true", help="instead of bfloat16")
    parser.add_argument("--compile", action="store_true", help="as --embed.compile")
    parser.add_argument("--workers", default="1", help="as --embed.workers")
    args = parser.parse_args()
    use_huge_pages()

    settings = EmbedSettings(
        model="full",
        batch_size=args.batch,
        bf16=not args.float32,
        compile=args.compile,
        workers=args.workers,
    )
    with tempfile.TemporaryDirectory() as folder:
        workspace = filled_workspace(Path(folder) / "workspace", args.clips)
        connect()
        report = run_stage(EmbedStage(workspace, settings), workspace)
        assert report.done == args.clips, report
        job = (args.clips - args.batch) / (report.seconds - report.first_seconds)
        bare = bare_rate(workspace, settings, args.clips)
    print(report)
    print(f"job {job:.2f} clips/s after its first batch, bare model {bare:.2f} clips/s")
    return check_bars(("job / bare model", job / bare, 0.95))


if __name__ == "__main__":
    raise SystemExit(main())
