"""Entry point of the train stage on a cluster; its flags are those of `ampere train`.

ray job submit --working-dir . -- python jobs/train.py --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
