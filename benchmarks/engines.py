"""Whether a pool of engines grows with its queue: `ampere summarize --summarize.workers 1:2` on more than one can do.

    python benchmarks/engines.py [--rows 6000] [--most 2]

Prints when each engine's process came, counted from the start of the job, and fails if the pool never grew. Engines of
half a core, so that two fit beside Ray's other work on two cores; on such a machine the second brings no more rows a
second, since both share what one had.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from bars import judge
from summarize import workspace_of

from ampere.synthetic.held_out import held_out_examples

ENGINE = "VLLM::EngineCore"
LOOK_S = 0.5  # between two looks at the job's processes


def engines_of(job: psutil.Process) -> set[int]:
    """Process ids of the engines that run under a job."""
    found = set()
    for process in job.children(recursive=True):
        try:
            if ENGINE in " ".join(process.cmdline()):
                found.add(process.pid)
        except psutil.Error:  # it ended between the two calls
            continue
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--most", type=int, default=2)
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
        start, came = time.monotonic(), dict[int, float]()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as job:
            process, most = psutil.Process(job.pid), 0
            while job.poll() is None:
                alive = engines_of(process)
                most = max(most, len(alive))
                for pid in alive - came.keys():
                    came[pid] = time.monotonic() - start
                    print(
                        f"engine {len(came)}, {len(alive)} alive: its process came after {came[pid]:.1f} s"
                    )
                time.sleep(LOOK_S)
            print(*(job.stdout or []), sep="", end="")
        print(f"the job took {time.monotonic() - start:.1f} s, exit status {job.returncode}")
    return job.returncode or judge(("engines alive at once", most, args.most))


if __name__ == "__main__":
    raise SystemExit(main())
