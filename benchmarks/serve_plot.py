"""Draw the figures that `benchmarks/serve.py --json FILE` wrote.

python benchmarks/serve_plot.py FILE OUT.png
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

CLIENTS = ("1", "8", "64")
KINDS = ("vector", "words", "picture", "clip")


def main(source: Path, out: Path) -> None:
    """Requests/s by kind and clients, and times under open load, of the first number of rows."""
    results = json.loads(source.read_text("utf-8"))
    rows, measured = next(iter(results["rows"].items()))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for place, kind in enumerate(KINDS):
        rates = [measured["closed"][f"{kind} {clients}"]["rate"] for clients in CLIENTS]
        places = [number + (place - 1.5) / 5 for number in range(len(CLIENTS))]
        left.bar(places, rates, 0.18, label=kind)
    left.set_xticks(range(len(CLIENTS)), CLIENTS)
    left.set_xlabel("clients")
    left.set_ylabel("answers per second")
    left.set_title(f"{int(rows):,} rows")
    left.set_yscale("log")
    left.margins(y=0.25)
    left.legend(frameon=False, ncols=len(KINDS), loc="upper center", columnspacing=1.0)
    loads = list(measured["opened"])
    for name in ("p50", "p95", "p99"):
        right.plot(loads, [measured["opened"][load][name] for load in loads], "o-", label=name)
    right.set_xlabel("pictures sent, in times of the capacity")
    right.set_ylabel("ms, of the answered ones")
    right.set_ylim(bottom=0)
    right.set_title("open load")
    right.legend(frameon=False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
