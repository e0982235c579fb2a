"""Entry point of the index stage on a cluster; its flags are those of `ampere index`.

ray job submit --working-dir . -- python jobs/index.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["index", *sys.argv[1:]]))
