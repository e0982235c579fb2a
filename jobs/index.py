"""Ray job that runs `ampere index` with the same flags.

ray job submit --working-dir . -- python jobs/index.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["index", *sys.argv[1:]]))
