"""Entry point for `ray job submit --working-dir . -- python jobs/index.py --workspace DIR-or-URI`; flags as `ampere index`."""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["index", *sys.argv[1:]]))
