"""Ray job that runs `ampere transcribe` with the same flags.

ray job submit --working-dir . -- python jobs/transcribe.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["transcribe", *sys.argv[1:]]))
