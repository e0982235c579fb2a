"""Ray job that runs `ampere ablate` with the same flags.

ray job submit --working-dir . -- python jobs/ablate.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["ablate", *sys.argv[1:]]))
