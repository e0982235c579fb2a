"""Ray job that runs `ampere evaluate` with the same flags.

ray job submit --working-dir . -- python jobs/evaluate.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
