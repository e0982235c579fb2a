"""Entry point of the figures stage on a cluster; its flags are those of `ampere figures`.

ray job submit --working-dir . -- python jobs/figures.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["figures", *sys.argv[1:]]))
