"""Entry point for `ray job submit --working-dir . -- python jobs/train.py --workspace DIR-or-URI`; flags as `ampere train`."""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
