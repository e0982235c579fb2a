"""Check that `ampere summarize` recovers from an engine that runs out of memory.

    python benchmarks/out_of_memory.py [--rows 60]

After the first rows, the engine's address space is limited to its current size (Linux), so that its
next larger allocation fails. Prints when the engine died and how many rows were processed. Fails
unless the engine died and its replacement answered every row.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow.compute as pc
from bars import check_bars
from engines import engines_of
from summarize import workspace_of

from ampere.records import FAILURES, SUMMARIES
from ampere.synthetic.held_out import held_out_examples

POLL_S = 0.1
HEADROOM = 2**16  # bytes


def main() -> int:
    """Run the check; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = workspace_of(
            Path(folder) / "workspace", [text for text, _ in held_out_examples(args.rows)]
        )
        # Small batches, so that the engine dies with batches in flight and pending.
        flags = ["--summarize.batch-size", "4", "--summarize.max-num-seqs", "4"]
        command = [
            sys.executable,
            "-m",
            "ampere.cli",
            "summarize",
            "--workspace",
            workspace.uri,
            *flags,
        ]
        summaries, died = workspace.table(SUMMARIES), 0
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as job:
            while job.poll() is None and not summaries.count():
                time.sleep(POLL_S)
            for pid in engines_of(psutil.Process(job.pid)) if job.poll() is None else ():
                engine, start = psutil.Process(pid), time.monotonic()
                limit = engine.memory_info().vms + HEADROOM
                resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
                print(
                    f"engine limited to {limit / 2**30:.2f} GiB with {summaries.count()} rows done",
                    flush=True,
                )
                while engine.is_running() and job.poll() is None:
                    time.sleep(POLL_S)
                died += job.poll() is None
                print(
                    f"engine died after {time.monotonic() - start:.1f} s "
                    f"with {summaries.count()} rows done",
                    flush=True,
                )
            print(job.communicate()[0], end="")
        failed = workspace.table(FAILURES).count(pc.field("error_type") != "AnswerError")
        print(
            f"{summaries.count()} of {args.rows} rows answered, {failed} failed; "
            f"exit status {job.returncode}"
        )
        answered = summaries.count() + workspace.table(FAILURES).count(
            pc.field("error_type") == "AnswerError"
        )
    return job.returncode or check_bars(
        ("engines that died", died, 1), ("share of rows answered", answered / args.rows, 1.0)
    )


if __name__ == "__main__":
    raise SystemExit(main())
