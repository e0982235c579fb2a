"""What the embed job costs beside its model: clips a second of the job on one actor over those of the bare model.

    python benchmarks/embed_job.py [--clips 48] [--batch 8] [--float32] [--compile] [--workers MIN:MAX]

The full-size network with random weights, on one thread, over clips of random frames. The job's time is that from its
first results to its last, so that the start of Ray and of the actor is left out; the bare model is fed decoded pixels.
Of several workers the bare model's rate is that of one, and the job's line on its pool tells whether it grew.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bars import judge
from PIL import Image

from ampere.cluster import connect
from ampere.config.embed import EmbedSettings
from ampere.config.model import ModelSettings
from ampere.media.images import encode_jpeg, model_input
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.embedder import Embedder
from ampere.models.model_folder import SETTINGS_FILE
from ampere.models.tokenizer import build_tokenizer
from ampere.pipeline.embed import embed_stage
from ampere.pipeline.runner.run import run_stage
from ampere.records import FRAMES, SAMPLES, Domain
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace

TEXT = "云岚薄荷控油洗发水 去屑 不刺激 五百毫升"


def filled(folder: Path, clips: int) -> Workspace:
    """A workspace of clips of random frames, and a model `full` of random weights."""
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
    """Clips a second of the network alone."""
    torch.set_num_threads(1)
    fixed = settings.batch_size if settings.compile else None
    embedder = Embedder(Path(workspace.uri) / "models" / "full", bf16=settings.bf16, fixed=fixed)
    stored = LanceFrames(workspace).take([f"s{i}" for i in range(clips)])
    pixels = [model_input(jpegs, embedder.model.image_size) for jpegs in stored]
    (embedder.compile if settings.compile else embedder.warm_up)()
    start = time.perf_counter()
    for at in range(0, clips, settings.batch_size):
        part = pixels[at : at + settings.batch_size]
        embedder.embed_pixels(part, [TEXT] * len(part), [Domain.SHORT] * len(part))
    return clips / (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--float32", action="store_true", help="rather than bfloat16")
    parser.add_argument("--compile", action="store_true", help="as --embed.compile")
    parser.add_argument("--workers", default="1", help="as --embed.workers")
    args = parser.parse_args()

    settings = EmbedSettings(
        model="full",
        batch_size=args.batch,
        bf16=not args.float32,
        compile=args.compile,
        workers=args.workers,
    )
    with tempfile.TemporaryDirectory() as folder:
        workspace = filled(Path(folder) / "workspace", args.clips)
        connect()
        report = run_stage(embed_stage(workspace, settings), workspace)
        assert report.done == args.clips, report
        job = (args.clips - args.batch) / (report.seconds - report.first_seconds)
        bare = bare_rate(workspace, settings, args.clips)
    print(report)
    print(f"job {job:.2f} clips/s after its first batch, bare model {bare:.2f} clips/s")
    return judge(("job over bare model", job / bare, 0.95))


if __name__ == "__main__":
    raise SystemExit(main())
