"""The evaluate stage: the six-task table of one or more models over the test products."""

import json
import math
import time
from typing import Any

import numpy as np

from ampere.config import EvaluateSettings
from ampere.models.embedder import embedding_name
from ampere.pipeline.embed import model_folder
from ampere.pipeline.index import index_rows
from ampere.pipeline.report import Report
from ampere.records import Domain, Split
from ampere.retrieval.evaluation import evaluate_model, format_table
from ampere.retrieval.index import stacked_vectors
from ampere.retrieval.metrics import Vectors
from ampere.workspace import Workspace


def evaluate(workspace: Workspace, settings: EvaluateSettings) -> Report:
    """Judge each model by exact search over the test split, and write reports/evaluation.json.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a model has no embeddings of test samples with a known product.
    """
    start = time.monotonic()
    results = [
        {"name": name} | evaluate_model(embedding_name(model_folder(workspace, name)), test_vectors(workspace, name))
        for name in settings.models
    ]
    # The first model's result stands at the top, the others beside it.
    report = results[0] | {"compared": results[1:]}
    where = workspace.write_report("evaluation.json", json.dumps(without_nan(report), indent=2, ensure_ascii=False))
    queries = sum(int(scores["queries"]) for scores in results[0]["tasks"].values())
    unanswered = sum(int(scores["queries_without_answer"]) for scores in results[0]["tasks"].values())
    notes = [format_table([result | {"model": result["name"]} for result in results])]
    if unanswered:
        notes.append(f"{unanswered} queries have no sample of their product in the gallery; they are left out")
    return Report("evaluate", where, done=queries, seconds=time.monotonic() - start, notes=notes)


def without_nan(value: Any) -> Any:
    """The same value with None for NaN, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def test_vectors(workspace: Workspace, name: str) -> dict[Domain, Vectors]:
    """Embeddings of the test samples whose product is known, by domain."""
    rows = index_rows(workspace, embedding_name(model_folder(workspace, name)), Split.TEST)
    if rows.num_rows == 0:
        raise ValueError(f"model {name} has no embeddings of test samples; run `ampere embed --embed.model {name}`")
    vectors = stacked_vectors(rows["vector"])
    domains = np.array(rows["domain"].to_pylist())
    products = np.array(rows["product_id"].to_pylist(), dtype=object)
    known = np.array([product is not None for product in products])
    return {
        domain: Vectors(
            vectors=vectors[known & (domains == domain)], products=products[known & (domains == domain)].astype(str)
        )
        for domain in Domain
    }
