"""Ray job that runs `ampere decode` with the same flags.

ray job submit --working-dir . -- python jobs/decode.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["decode", *sys.argv[1:]]))
