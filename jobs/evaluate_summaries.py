"""Entry point of the scoring of summaries on a cluster; its flags are those of `ampere evaluate-summaries`.

ray job submit --working-dir . -- python jobs/evaluate_summaries.py --gold FILE --workspace DIR-or-URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate-summaries", *sys.argv[1:]]))
