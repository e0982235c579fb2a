"""Ray job that runs `ampere summarize` with the same flags.

ray job submit --working-dir . -- python jobs/summarize.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["summarize", *sys.argv[1:]]))
