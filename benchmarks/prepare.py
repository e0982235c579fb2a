"""Measure time and memory of `ampere prepare` for catalogs of up to two million lines.

    python benchmarks/prepare.py [--lines 250000 500000 1000000 2000000]

Writes ROPE's files for shorts: eight frame lines per sample, far apart in the file. Runs `prepare`
on each set in a process of its own, then again on the unchanged set, and prints seconds and peak
memory. The last line is the growth of memory per growth of the files.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from ampere.catalog.rope import DOMAIN_FILES

FRAMES = 8
RUN = """
import resource, sys, time
from ampere.cli import main
start = time.perf_counter()
assert main(["prepare", "--rope", sys.argv[1], "--workspace", sys.argv[2]]) == 0
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write_rope(folder: Path, lines: int) -> int:
    """Write a training split of `lines` frame lines; return the bytes of all files."""
    for names in DOMAIN_FILES.values():
        for name in names:
            (folder / f"training_{name}.txt").write_text("")
    ids = range(10**7, 10**7 + lines // FRAMES)
    (folder / "training_product_videos_pair.txt").write_text(
        "".join(f"{i % 9999}, {i}\n" for i in ids)
    )
    speech = "家人们今天给大家带来的是这一款，" * 4
    (folder / "training_video_asrs.txt").write_text("".join(f"{i}, {speech}{i}\n" for i in ids))
    with (folder / "training_video_frames.txt").open("w", encoding="utf-8") as file:
        for number in range(FRAMES):
            file.writelines(
                f"{i}, {number * 30}, frames/{i % 1000:03d}/{i}-{number * 30:06d}.jpg\n"
                for i in ids
            )
    return sum(path.stat().st_size for path in folder.glob("*.txt"))


def main() -> int:
    """Run the benchmark; there are no bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--lines", type=int, nargs="+", default=[250_000, 500_000, 1_000_000, 2_000_000]
    )
    args = parser.parse_args()
    first_runs = []
    for lines in args.lines:
        with tempfile.TemporaryDirectory() as name:
            size = write_rope(Path(name), lines) / 1e6
            for run in ("first", "again"):
                command = [sys.executable, "-c", RUN, name, f"{name}/workspace"]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                seconds, peak = map(float, output.splitlines()[-1].split())
                print(
                    f"{lines:>10} lines, {size:6.1f} MB, {run}: {seconds:6.1f} s, "
                    f"peak memory {peak:5.0f} MB",
                    flush=True,
                )
                if run == "first":
                    first_runs.append((size, peak))
    (small, low), (large, high) = first_runs[0], first_runs[-1]
    more, growth = large - small, high - low
    print(f"{more:.0f} MB more of files took {growth:.0f} MB more memory: {growth / more:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
