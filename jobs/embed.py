"""Ray job that runs `ampere embed` with the same flags.

ray job submit --working-dir . -- python jobs/embed.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["embed", *sys.argv[1:]]))
