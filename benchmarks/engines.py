"""Check that a pool of engines grows with its queue: `ampere summarize --summarize.workers 1:2`.

    python benchmarks/engines.py [--rows 6000] [--most 2]

Prints when each engine's process started, counted from the start of the job, and fails if the pool
never grew. Engines get half a core, so that two fit beside Ray's other work on two cores; on such a
machine the second adds no throughput, since both share the cores.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from bars import check_bars
from summarize import workspace_of

from ampere.synthetic.held_out import held_out_examples

ENGINE = "VLLM::EngineCore"
POLL_S = 0.5


def engines_of(job: psutil.Process) -> set[int]:
    """Return the process ids of a job's engines."""
    engines = set()
    for process in job.children(recursive=True):
        try:
            if ENGINE in " ".join(process.cmdline()):
                engines.add(process.pid)
        except psutil.Error:  # it ended between the two calls
            continue
    return engines


def main() -> int:
    """Run the benchmark; return 1 if the pool did not grow."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--most", type=int, default=2, help="engines in the pool")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = workspace_of(
            Path(folder) / "workspace", [text for text, _ in held_out_examples(args.rows)]
        )
        flags = [
            "--summarize.workers",
            f"1:{args.most}",
            "--summarize.cpus",
            "0.5",
            "--summarize.batch-size",
            "32",
        ]
        command = [
            sys.executable,
            "-m",
            "ampere.cli",
            "summarize",
            "--workspace",
            workspace.uri,
            *flags,
        ]
        start, started = time.monotonic(), dict[int, float]()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as job:
            process, most = psutil.Process(job.pid), 0
            while job.poll() is None:
                alive = engines_of(process)
                most = max(most, len(alive))
                for pid in alive - started.keys():
                    started[pid] = time.monotonic() - start
                    print(
                        f"engine {len(started)} started after {started[pid]:.1f} s, "
                        f"{len(alive)} alive"
                    )
                time.sleep(POLL_S)
            print(*(job.stdout or []), sep="", end="")
        print(f"the job took {time.monotonic() - start:.1f} s, exit status {job.returncode}")
    return job.returncode or check_bars(("engines alive at once", most, args.most))


if __name__ == "__main__":
    raise SystemExit(main())
