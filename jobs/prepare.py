"""Ray job that runs `ampere prepare` with the same flags.

ray job submit --working-dir . -- python jobs/prepare.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", *sys.argv[1:]]))
