"""Ray job that runs `ampere figures` with the same flags.

ray job submit --working-dir . -- python jobs/figures.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["figures", *sys.argv[1:]]))
