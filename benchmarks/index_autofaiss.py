"""autofaiss on the data of `benchmarks/index.py`, in a Python environment of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
from index_data import BATCH, Data

SCRIPT = """
import json, sys, time
import numpy as np
from autofaiss import build_index
vectors, queries, places, memory, available, cores, batch, k = sys.argv[1:]
vectors, queries = np.load(vectors), np.load(queries)
start = time.perf_counter()
index, about = build_index(vectors, save_on_disk=False, metric_type="ip",
                           max_index_memory_usage=memory, current_memory_available=available,
                           nb_cores=int(cores), verbose=40)
build_s, times = time.perf_counter() - start, []
if index is None:
    sys.exit("autofaiss found no index for this memory")
for _ in range(8):
    start = time.perf_counter()
    index.search(queries[:int(batch)], int(k))
    times.append(time.perf_counter() - start)
np.save(places, index.search(queries, int(k))[1])
name = f"{about['index_key']} {about['index_param']}"
print(json.dumps({"name": name, "build_s": build_s, "batch_s": min(times)}))
"""


def compare_autofaiss(folder: Path, data: Data, memory_gb: float, exact_s: float) -> str:
    """Return a line on what autofaiss builds of the pages in the same memory, or why it failed.

    Args:
        folder: of the environment with autofaiss; created if missing.
        exact_s: seconds of exact search for a batch.
    """
    with tempfile.TemporaryDirectory() as scratch:
        vectors, queries, places = (
            Path(scratch) / f"{name}.npy" for name in ("vectors", "queries", "places")
        )
        np.save(vectors, data.pages)
        np.save(queries, data.queries)
        # In bytes: GB mean 2^30 bytes to autofaiss.
        memory, available = (
            f"{count}B" for count in (round(1e9 * memory_gb), psutil.virtual_memory().available)
        )
        files = [str(file) for file in (vectors, queries, places)]
        numbers = [str(n) for n in (faiss.omp_get_max_threads(), BATCH, data.exact.shape[1])]
        try:
            python = str(autofaiss_python(folder))
            output = run([python, "-c", SCRIPT, *files, memory, available, *numbers])
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or error.stdout).strip().splitlines() or [str(error)]
            return f"autofaiss could not be measured: {lines[-1]}"
        result: dict[str, Any] = json.loads(output.splitlines()[-1])
        recall = data.recall(np.load(places))
    return (
        f"autofaiss in {memory_gb:.3f} GB: {result['name']}, recall@10 {recall:.4f}, "
        f"{BATCH / result['batch_s']:,.0f} queries/s, {exact_s / result['batch_s']:.1f}x exact, "
        f"built in {result['build_s']:.1f} s"
    )


def autofaiss_python(folder: Path) -> Path:
    """Return the Python of an environment with autofaiss; create the environment if missing.

    Raises:
        subprocess.CalledProcessError: autofaiss cannot be installed.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(folder)])
        # autofaiss 2.18 requires NumPy 1, which the newest pyarrow does not support, and fails on
        # FAISS 1.15.
        packages = ["autofaiss", "pyarrow<22", "faiss-cpu<1.12"]
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, *packages])
    run([str(python), "-c", "import autofaiss"])
    return python


def run(command: Sequence[str]) -> str:
    """Run a command and return what it prints to stdout.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
