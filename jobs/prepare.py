"""Entry point for `ray job submit --working-dir . -- python jobs/prepare.py --workspace DIR-or-URI`; flags as `ampere prepare`."""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", *sys.argv[1:]]))
