"""Ray job that runs `ampere evaluate-summaries` with the same flags.

ray job submit --working-dir . -- python jobs/evaluate_summaries.py --gold FILE --workspace URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate-summaries", *sys.argv[1:]]))
