r"""The knn service of clip-retrieval on the vectors of `benchmarks/serve.py`.

It runs in an environment of its own, since it needs numpy below 2 or other pins:

    uv venv ENV && uv pip install --python ENV/bin/python --no-deps clip-retrieval
    uv pip install --python ENV/bin/python flask flask_restful flask_cors faiss-cpu pandas \
        pyarrow h5py prometheus-client fsspec fire tqdm numpy pillow requests torch

Its `clip_back` would download CLIP; the service is given an index and metadata instead, and the
vectors that it is asked for.
"""

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import pyarrow as pa
from search_data import SearchData
from serve_load import Generator, Kind, Outcome

PORT = 18_766
CLIENTS = (1, 8, 64)
SERVICE = """
import importlib.util, sys, types
from pathlib import Path

folder, port = Path(sys.argv[1]), int(sys.argv[2])
found = importlib.util.find_spec("clip_retrieval")
package = types.ModuleType("clip_retrieval")  # without its __init__, which imports every tool
package.__path__ = list(found.submodule_search_locations)
sys.modules["clip_retrieval"] = package

import faiss, numpy as np
from flask import Flask
from flask_restful import Api
from clip_retrieval.clip_back import ArrowMetadataProvider, ClipResource, KnnService

vectors = np.load(folder / "vectors.npy")
index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
index.add(vectors)
index.hnsw.efSearch = int(sys.argv[3])
resource = ClipResource(
    device="cpu", model=None, preprocess=None, tokenizer=None, model_txt_mclip=None,
    safety_model=None, violence_detector=None,
    metadata_provider=ArrowMetadataProvider(folder / "metadata"), image_index=index,
    text_index=None, ivf_old_to_new_mapping=None, columns_to_return=["caption", "url"],
    metadata_is_ordered_by_ivf=False, aesthetic_embeddings=None,
)
app = Flask("knn")
Api(app).add_resource(
    KnnService, "/knn-service", resource_class_kwargs={"clip_resources": {"bench": resource}}
)
import logging
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app.run(host="127.0.0.1", port=port, debug=False)  # as clip_back does
"""


@dataclass(frozen=True)
class Beside:
    """The running service.

    Attributes:
        process: of it.
        queries: in its own form.
    """

    process: "Popen[bytes]"
    queries: Kind

    def measure(self, ours: Generator, kind: Kind, seconds: float) -> dict[str, Any]:
        """Requests/s and times of both services in turn, by the number of clients."""
        theirs = Generator(f"http://127.0.0.1:{PORT}")
        results = {}
        try:
            theirs.closed(self.queries, 2, 2)
            for clients in CLIENTS:
                pair = []
                for name, generator, queries in (
                    ("ampere", ours, kind),
                    ("clip-retrieval", theirs, self.queries),
                ):
                    outcome = generator.closed(queries, clients, seconds)
                    print(f"  {name:14} vector {clients:3} clients {outcome}", flush=True)
                    pair.append(figures(outcome))
                results[str(clients)] = pair
        finally:
            theirs.close()
            self.process.terminate()
        return results


def figures(outcome: Outcome) -> dict[str, float]:
    """Requests/s and p99 of a load."""
    return {"rate": outcome.rate, "p99": outcome.percentile_ms(99)}


def clip_retrieval(python: str, data: SearchData, folder: Path, effort: int) -> Beside:
    """Start the service on the pages of random data.

    Args:
        python: of its environment.
        data: vectors and titles.
        folder: for its files.
        effort: efSearch of its index, for the recall of ours.
    """
    folder = folder / "clip-retrieval"
    (folder / "metadata").mkdir(parents=True)
    np.save(folder / "vectors.npy", data.pages)
    count = len(data.pages)
    captions = data.table["text"].slice(0, count).combine_chunks()
    urls = pa.array([f"/media/{number}.jpg" for number in range(count)])
    rows = pa.table({"caption": captions, "url": urls})
    with pa.ipc.new_file(folder / "metadata" / "0.arrow", rows.schema) as writer:
        writer.write_table(rows)
    command = [python, "-c", SERVICE, str(folder), str(PORT), str(effort)]
    process = Popen(command)
    while process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", PORT), timeout=1):
                break
        except OSError:
            continue
    bodies = tuple(
        json.dumps(
            {
                "embedding_input": vector.tolist(),
                "modality": "image",
                "num_images": 10,
                "indice_name": "bench",
            }
        ).encode()
        for vector in data.queries
    )
    return Beside(process, Kind(name="vector", path="/knn-service", bodies=bodies))
