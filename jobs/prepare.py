"""Entry point of the prepare stage on a cluster; its flags are those of `ampere prepare`.

ray job submit --working-dir . -- python jobs/prepare.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["prepare", *sys.argv[1:]]))
