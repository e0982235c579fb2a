"""What the decode job costs beside a bare loop over the same decoder.

    python benchmarks/decode.py --clips 400

Writes clips of the demo's kind, then times (a) one process that calls `decode_sample` on each in turn and (b) the
whole `ampere decode` stage on Ray with a table written. Prints both rates and the ratio job / (loop x cores), both
of the same run. Ray's start is not counted; it is printed.
"""

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

from ampere.catalog.clip_file import encode_clip
from ampere.catalog.goods import demo_products
from ampere.catalog.looks import draw_look
from ampere.catalog.scenes import clip_frames
from ampere.config import DecodeSettings
from ampere.media.decord_decoder import DecordDecoder
from ampere.media.sample_frames import decode_sample, read_bytes
from ampere.pipeline.cluster import connect
from ampere.pipeline.decode import decode_stage
from ampere.pipeline.prepare import prepare
from ampere.pipeline.runner import run_stage
from ampere.records import Domain, MediaKind, Sample, Split
from ampere.workspace import Workspace


def write_clips(folder: Path, count: int) -> list[str]:
    """`count` samples over a dozen distinct files of 48 frames."""
    rng, paths = random.Random(0), []
    for number, product in enumerate(demo_products(rng, 12)):
        paths.append(folder / f"{number}.mp4")
        look = draw_look(product, str(number), rng)
        encode_clip(paths[-1], clip_frames(look, rng, Domain.LIVE, 48), 8, None)
    return [str(paths[i % len(paths)]) for i in range(count)]


def bare_loop(paths: list[str], settings: DecodeSettings) -> float:
    """Seconds of one process without Ray or tables."""
    start = time.perf_counter()
    for path in paths:
        decode_sample(
            MediaKind.VIDEO,
            [read_bytes(path)],
            decoder=DecordDecoder(),
            num_frames=settings.num_frames,
            short_side=settings.short_side,
            jpeg_quality=settings.jpeg_quality,
        )
    return time.perf_counter() - start


def job(paths: list[str], settings: DecodeSettings, folder: Path) -> float:
    """Seconds of the whole stage, Ray running already."""
    workspace = Workspace.create(folder / "workspace", "demo")
    samples = (
        (
            str(i),
            Sample(
                sample_id=str(i),
                product_id=None,
                domain=Domain.LIVE,
                split=Split.TEST,
                text=None,
                media_kind=MediaKind.VIDEO,
                media_uris=(path,),
            ),
        )
        for i, path in enumerate(paths)
    )
    prepare(workspace, samples)
    return run_stage(decode_stage(workspace, settings), workspace).seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=400)
    args = parser.parse_args()
    settings, cores = DecodeSettings(), os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        paths = write_clips(Path(name), args.clips)
        start = time.perf_counter()
        connect()
        print(f"Ray started in {time.perf_counter() - start:.1f} s")
        loop_s = bare_loop(paths, settings)
        job_s = job(paths, settings, Path(name))
    print(f"bare loop {args.clips / loop_s:.1f} clips/s in one process, job {args.clips / job_s:.1f} clips/s")
    print(f"job over loop x {cores} cores: {loop_s / job_s / cores:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
