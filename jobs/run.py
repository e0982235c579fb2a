"""Ray job that runs `ampere run` with the same flags.

ray job submit --working-dir . -- python jobs/run.py --workspace DIR-or-URI --until index
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["run", *sys.argv[1:]]))
