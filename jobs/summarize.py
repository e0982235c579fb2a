"""Entry point for `ray job submit --working-dir . -- python jobs/summarize.py --workspace DIR-or-URI`; flags as `ampere summarize`."""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["summarize", *sys.argv[1:]]))
