"""Cost of decoding, and of the decode job on top of it, in one run since machines are noisy.

    python benchmarks/decode.py [--copies 40] [--torchcodec PYTHON]
    python benchmarks/decode.py --fake-rows 20000 [--batch-sizes 32 64 128 256]

Writes four videos of 720 x 1280 at 30 frames a second and 2 Mbit/s: 35 s and 112 s long, with a key
frame every 2 s and every 8 s. Then measures, with one thread each:

1. exact uniform frames by our decoder, against decord, a plain PyAV loop (seek, decode up to the
   frame) and torchcodec called directly, each the best of three; and our key frames against our
   exact frames. torchcodec, if any, has its own environment: its wheels bring the CUDA build of
   torch.
2. the whole `ampere decode` job on Ray with `--copies` of each file (four times as many for key
   frames), against a bare loop of one process over the same work (reading, decoding, JPEG):
   job / (loop x cores). Ray's start is printed and not counted.
3. peak memory of the job over all its processes, also for a quarter of the samples.

With `--fake-rows` it measures commits instead of codecs: the whole job with eight simulated workers
and a decoder that makes eight frames of 12 kB from random bytes. It prints rows/s, the driver's
peak memory, the bytes of the rows that came to it, and how often it committed and merged files.
"""

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pyarrow as pa
from memory import PeakMemory

from ampere.cluster import connect
from ampere.config.decode import DecodeSettings
from ampere.media.decoder import FrameRequest, Sampling
from ampere.media.pyav_decoder import PyavDecoder
from ampere.media.sample_frames import decode_sample
from ampere.media.sampling import uniform_indices
from ampere.pipeline.decode import DecodeStage
from ampere.pipeline.prepare.stage import prepare
from ampere.pipeline.runner.commit import Committer
from ampere.pipeline.runner.run import run_stage
from ampere.records import FRAMES as FRAMES_TABLE
from ampere.records import Domain, MediaKind, Sample, Split
from ampere.store.table import Table
from ampere.store.workspace import Workspace

FRAMES, RATE, WIDTH, HEIGHT = 8, 30, 720, 1280
MERGE = "merge_files" if hasattr(Table, "merge_files") else "compact"
WORKERS = 8  # simulated, of `--fake-rows`
KINDS = [(seconds, gap) for seconds in (35, 112) for gap in (2, 8)]
TORCHCODEC = """
import sys, time, torch
from torchcodec.decoders import VideoDecoder
torch.set_num_threads(1)
for path in sys.argv[1:]:
    data, best = open(path, "rb").read(), 9e9
    for _ in range(3):
        start = time.perf_counter()
        video = VideoDecoder(data, num_ffmpeg_threads=1, dimension_order="NHWC")
        count = video.metadata.num_frames
        video.get_frames_at([(2 * i + 1) * count // 16 for i in range(8)]).data
        best = min(best, time.perf_counter() - start)
    print(best)
"""


def write_video(path: Path, seconds: int, key_gap: int) -> None:
    """Write a picture that moves under fresh noise: neither still nor incompressible."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
    scene = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    noise = rng.integers(0, 24, (RATE, HEIGHT, WIDTH, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        gop = str(key_gap * RATE)
        options = {"preset": "veryfast", "g": gop, "keyint_min": gop, "sc_threshold": "0"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for i in range(seconds * RATE):
            pixels = np.roll(scene, (3 * i, 2 * i), (0, 1)) // 2 + noise[i % RATE]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def plain_decord(data: bytes) -> None:
    """Decode uniform frames with decord called directly."""
    import decord

    reader = decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), num_threads=1)
    reader.get_batch(uniform_indices(len(reader), FRAMES)).asnumpy()


def plain_pyav(data: bytes) -> None:
    """Seek to the key frame before each uniform frame, and decode up to it."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        base = stream.time_base or Fraction(1)
        for index in uniform_indices(stream.frames, FRAMES):
            wanted = round(index / RATE / base)
            container.seek(wanted, stream=stream)
            frame = next(
                f for f in container.decode(stream) if f.pts is not None and f.pts >= wanted
            )
            frame.to_ndarray(format="rgb24")


def ours(sampling: Sampling, short_side: int | None = None) -> Callable[[bytes], object]:
    """Our decoder as a function of the file."""
    request = FrameRequest(num_frames=FRAMES, sampling=sampling, short_side=short_side)
    return lambda data: PyavDecoder().decode(data, request)


def best_of(work: Callable[[bytes], object], data: bytes, times: int = 3) -> float:
    """The shortest time of a few calls, in seconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work(data)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def compare_decoders(paths: list[Path], torchcodec: str | None) -> None:
    """Print seconds per video of each decoder, and the ratios."""
    decoders: dict[str, Callable[[bytes], object]] = {
        "decord": plain_decord,
        "PyAV": plain_pyav,
        "ours": ours(Sampling.UNIFORM),
        "ours, stored size": ours(Sampling.UNIFORM, 256),
        "ours, key frames": ours(Sampling.KEYFRAME, 256),
    }
    seconds = {
        name: [best_of(decode, path.read_bytes()) for path in paths]
        for name, decode in decoders.items()
    }
    direct = ["decord", "PyAV"]
    if torchcodec:
        command = [torchcodec, "-c", TORCHCODEC, *map(str, paths)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds["torchcodec"] = [float(line) for line in output.split()]
        direct.append("torchcodec")
    print(f"{'seconds a video':<20}" + "".join(f"{f'{s} s, key {g} s':>15}" for s, g in KINDS))
    for name, values in seconds.items():
        print(f"{name:<20}" + "".join(f"{value:>15.3f}" for value in values))
    ratios = [min(seconds[d][i] for d in direct) / seconds["ours"][i] for i in range(len(paths))]
    print(f"{'best direct / ours':<20}" + "".join(f"{value:>14.2f}x" for value in ratios))
    ratios = [
        seconds["ours, stored size"][i] / seconds["ours, key frames"][i] for i in range(len(paths))
    ]
    print(f"{'exact / key frames':<20}" + "".join(f"{value:>14.2f}x" for value in ratios))


def bare_loop(paths: list[Path], settings: DecodeSettings) -> float:
    """Seconds per sample in one process without Ray, isolation or tables; each file three times."""
    start = time.perf_counter()
    for _ in range(3):
        for path in paths:
            decode_sample(MediaKind.FILE, [str(path)], settings)
    return (time.perf_counter() - start) / (3 * len(paths))


def job(
    paths: list[Path], copies: int, settings: DecodeSettings, folder: Path
) -> tuple[float, float, "DriverStatistics"]:
    """Seconds per sample of the whole stage on a running Ray, its peak memory in GB, its driver."""
    workspace = prepared(paths, copies, folder)
    with PeakMemory() as memory, DriverStatistics() as driver:
        report = run_stage(DecodeStage(workspace, settings), workspace)
    assert report.done == copies * len(paths), report
    return report.seconds / report.done, memory.peak / 1e9, driver


def prepared(paths: list[Path], copies: int, folder: Path) -> Workspace:
    """A workspace with copies of some clips."""
    workspace = Workspace.create(folder, "demo")
    samples = (
        Sample(
            sample_id=f"{path.stem}-{copy}",
            product_id=None,
            domain=Domain.LIVE,
            split=Split.TEST,
            text=None,
            media_kind=MediaKind.FILE,
            media_uris=(str(path),),
        )
        for copy in range(copies)
        for path in paths
    )
    prepare(workspace, ((sample.sample_id, sample) for sample in samples))
    return workspace


def use_fake_decoder() -> None:
    """Replace the decoder in a worker process by one that takes no time."""
    import ampere.pipeline.decode

    def fake(*_: object) -> dict[str, object]:
        return {
            "frames": [random.randbytes(12_000) for _ in range(FRAMES)],
            "timestamps_s": [float(i) for i in range(FRAMES)],
            "width": 256,
            "height": 455,
            "decoder": "fake",
            "source_bytes": 1_000_000,
            "source_hash": "fake",
        }

    ampere.pipeline.decode.decode_media = fake


class DriverStatistics:
    """What a job's driver does, from entering the context to leaving it.

    Attributes:
        peak_mb: peak resident memory above that at the start.
        row_mb: total size of the rows that were handed to the committer.
        commits: calls of the committer.
        merged: number of files before each merge of files.
        merge_s: total time of the merges.
    """

    def __enter__(self) -> "DriverStatistics":
        self.peak_mb, self.row_mb, self.commits = 0.0, 0.0, 0
        self.merged: list[int] = []
        self.merge_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        self._originals = commit, compact = Committer.commit, getattr(Table, MERGE)

        def counted(committer: Committer, batch: pa.Table) -> None:
            self.row_mb += batch.nbytes / 1e6
            self.commits += 1
            commit(committer, batch)

        def timed(table: Table, *args: object) -> object:
            start = time.perf_counter()
            dataset = table.dataset()
            if table.spec is FRAMES_TABLE and dataset is not None:
                self.merged.append(len(dataset.get_fragments()))
            result = compact(table, *args)
            self.merge_s += time.perf_counter() - start
            return result

        Committer.commit = counted  # type: ignore[method-assign]
        setattr(Table, MERGE, timed)
        return self

    def __str__(self) -> str:
        return (
            f"driver {self.peak_mb:.0f} MB more memory, {self.row_mb:.1f} MB of rows in "
            f"{self.commits} commits, merges of {self.merged} files in {self.merge_s:.1f} s"
        )

    def __exit__(self, *_: object) -> None:
        Committer.commit = self._originals[0]  # type: ignore[method-assign]
        setattr(Table, MERGE, self._originals[1])
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        start = process.memory_info().rss
        while not self._stop.wait(0.05):
            self.peak_mb = max(self.peak_mb, (process.memory_info().rss - start) / 1e6)


def measure_commits(rows: int, batch_sizes: list[int], folder: Path) -> None:
    """Print what the job's driver does when decoding costs nothing."""
    import ray

    ray.init(
        num_cpus=WORKERS,
        runtime_env={"worker_process_setup_hook": use_fake_decoder},
        log_to_driver=False,
    )
    connect()
    # The first job starts the workers, and is not measured.
    for size in (batch_sizes[0], *batch_sizes):
        workspace = prepared([Path("/clip.mp4")], rows, folder / str(size))
        shutil.rmtree(folder / str(size) / "frames.lance", ignore_errors=True)
        start = time.perf_counter()
        with DriverStatistics() as driver:
            report = run_stage(DecodeStage(workspace, DecodeSettings(batch_size=size)), workspace)
        seconds = time.perf_counter() - start
        assert report.done == rows, report
        assert workspace.table(FRAMES_TABLE).count() == rows
        print(
            f"batch size {size}: {rows / report.seconds:.0f} rows/s, {rows / seconds:.0f} with the "
            f"last merge of files; {driver}"
        )


def main() -> int:
    """Run all measurements and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--copies", type=int, default=40)
    parser.add_argument(
        "--torchcodec", metavar="PYTHON", help="interpreter of an environment with torchcodec"
    )
    parser.add_argument("--fake-rows", type=int, default=0)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64])
    args = parser.parse_args()
    if args.fake_rows:
        with tempfile.TemporaryDirectory() as name:
            measure_commits(args.fake_rows, args.batch_sizes, Path(name))
        return 0
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{seconds}s-key{gap}s.mp4" for seconds, gap in KINDS]
        for path, (seconds, gap) in zip(paths, KINDS, strict=True):
            write_video(path, seconds, gap)
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
        compare_decoders(paths, args.torchcodec)
        start = time.perf_counter()
        connect()
        print(f"\nRay started in {time.perf_counter() - start:.1f} s")
        # Copies such that both take about the same time.
        for sampling, copies in (("uniform", args.copies), ("keyframe", 4 * args.copies)):
            settings = DecodeSettings(sampling=sampling)
            _, small, _ = job(paths, max(1, copies // 4), settings, folder / f"{sampling}-small")
            loop_s = bare_loop(paths, settings)
            job_s, large, driver = job(paths, copies, settings, folder / f"{sampling}-large")
            print(
                f"{sampling}: bare loop {1 / loop_s:.2f} samples/s in one process, "
                f"job {1 / job_s:.2f} samples/s; "
                f"job over loop x {cores} cores: {loop_s / job_s / cores:.2f}; "
                f"peak memory {large:.2f} GB for {copies * len(paths)} samples, "
                f"{small:.2f} GB for a quarter; {driver}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
