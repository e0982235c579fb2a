"""Ray job that runs `ampere evaluate-transcripts` with the same flags.

ray job submit --working-dir . -- python jobs/evaluate_transcripts.py --gold FILE --workspace URI
"""

import sys

from ampere.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate-transcripts", *sys.argv[1:]]))
