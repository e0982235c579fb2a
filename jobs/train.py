"""Ray job that runs `ampere train` with the same flags.

ray job submit --working-dir . -- python jobs/train.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
