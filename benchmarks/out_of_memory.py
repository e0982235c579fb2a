"""What an engine that runs out of memory costs: `ampere summarize` whose engine may have no more than it has.

    python benchmarks/out_of_memory.py [--rows 60]

Once the first rows are there, the engine's address space is limited to its present size (Linux), so that its next
larger allocation fails. Prints when it was gone and what became of the rows; fails unless the engine died and every row
was answered by the one that took its place.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from bars import judge
from engines import engines_of
from summarize import workspace_of

from ampere.records import FAILURES, SUMMARIES
from ampere.synthetic.held_out import held_out_examples

LOOK_S = 0.1
LEFT = 2**16  # bytes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = workspace_of(
            Path(folder) / "workspace", [text for text, _ in held_out_examples(args.rows)]
        )
        # Small batches, so that the end comes in the midst of them.
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
                time.sleep(LOOK_S)
            for pid in engines_of(psutil.Process(job.pid)) if job.poll() is None else ():
                engine, start = psutil.Process(pid), time.monotonic()
                most = engine.memory_info().vms + LEFT
                resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
                print(
                    f"with {summaries.count()} rows done an engine of {most / 2**30:.2f} GiB gets no more",
                    flush=True,
                )
                while engine.is_running() and job.poll() is None:
                    time.sleep(LOOK_S)
                died += job.poll() is None
                print(
                    f"it was gone after {time.monotonic() - start:.1f} s, with {summaries.count()} rows done",
                    flush=True,
                )
            print(job.communicate()[0], end="")
        failed = workspace.table(FAILURES).count("error_type != 'AnswerError'")
        print(
            f"{summaries.count()} of {args.rows} rows answered, {failed} lost; exit status {job.returncode}"
        )
        answered = summaries.count() + workspace.table(FAILURES).count("error_type = 'AnswerError'")
    return job.returncode or judge(
        ("engines that died", died, 1), ("share of rows answered", answered / args.rows, 1.0)
    )


if __name__ == "__main__":
    raise SystemExit(main())
