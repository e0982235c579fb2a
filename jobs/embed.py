"""Entry point of the embed stage on a cluster; its flags are those of `ampere embed`.

ray job submit --working-dir . -- python jobs/embed.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["embed", *sys.argv[1:]]))
