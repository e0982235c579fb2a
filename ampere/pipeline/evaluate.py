"""The evaluate stage: the six-task table of one or more models over the test products."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.config.evaluate import EvaluateSettings
from ampere.models.model_folder import embedding_name, text_source
from ampere.pipeline.runner.report import Report
from ampere.records import EMBEDDINGS, SAMPLES, Domain, Split
from ampere.retrieval.evaluation import Results, compare, evaluate_model, judge, same_samples
from ampere.retrieval.index import stacked_vectors
from ampere.retrieval.metrics import Vectors
from ampere.retrieval.tables import format_comparison, format_groups, format_table
from ampere.store.models import model_folder
from ampere.store.texts import sample_texts
from ampere.store.workspace import Workspace

CATEGORY = "category"  # the catalogue's column of this name, if it has one, parts the queries
LONGEST_CATEGORY = 100  # characters; numpy gives each value of an array the room of the longest
TESTED = (
    f"split = '{Split.TEST}' AND product_id IS NOT NULL"  # the samples that models are judged on
)


def evaluate(workspace: Workspace, settings: EvaluateSettings) -> Report:
    """Judge each model by exact search over the test split, and write reports/evaluation.json.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a model has no embeddings of test samples with a known product, or two models to compare were not
            judged on the same samples.
    """
    start = time.monotonic()
    names = settings.compare or settings.models
    folders = {name: model_folder(workspace, name) for name in names}
    vectors = {name: test_vectors(workspace, folder) for name, folder in folders.items()}
    judged = {name: judge(found) for name, found in vectors.items()}
    tested = workspace.table(SAMPLES).count(TESTED)
    left_out = {
        name: tested - sum(len(v.products) for v in found.values())
        for name, found in vectors.items()
    }
    results: list[dict[str, Any]] = [
        {"name": name, "test_samples": tested, "without_embedding": left_out[name]}
        | evaluate_model(embedding_name(folders[name]), judged[name])
        for name in judged
    ]
    # The first model's result stands at the top, the others beside it.
    report = results[0] | {"compared": results[1:]}
    notes = [
        format_table([result | {"model": result["name"]} for result in results]),
        format_groups(results[0]),
    ]
    if settings.compare:
        report["comparison"] = comparison = compare_models(judged, *settings.compare)
        notes.append(format_comparison(*settings.compare, comparison))
    where = workspace.write_report(
        "evaluation.json", json.dumps(without_nan(report), indent=2, ensure_ascii=False)
    )
    queries = sum(int(scores["queries"]) for scores in results[0]["tasks"].values())
    notes += [
        f"{name}: {count} queries have no sample of their product in the gallery; they are left out"
        for name, found in judged.items()
        if (count := sum(result.unanswered for result in found.values()))
    ]
    notes += [not_embedded(name, count, tested) for name, count in left_out.items() if count]
    return Report("evaluate", where, done=queries, seconds=time.monotonic() - start, notes=notes)


def compare_models(judged: dict[str, Results], first: str, second: str) -> dict[str, Any]:
    """What the second model has over the first.

    Raises:
        ValueError: they were not judged on the same queries and galleries.
    """
    if not same_samples(judged[first], judged[second]):
        raise ValueError(
            f"{first} and {second} have embeddings of different samples; run `ampere embed` for both"
        )
    return compare(judged[first], judged[second])


def without_nan(value: Any) -> Any:
    """The same value with None for NaN, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def test_vectors(workspace: Workspace, folder: Path) -> dict[Domain, Vectors]:
    """A model's embeddings of the test samples whose product is known, by domain and in order of their ids.

    Products and domains are the catalogue's present ones. Samples that are not embedded by the model's present weights
    are left out.

    Raises:
        ValueError: none is.
    """
    samples = workspace.table(SAMPLES).read(["sample_id", "product_id", "domain", "extra"], TESTED)
    samples = samples.sort_by("sample_id")
    embedded = workspace.table(EMBEDDINGS).read(
        ["sample_id", "vector"], f"model = '{embedding_name(folder)}'"
    )
    at = pc.index_in(samples["sample_id"], value_set=embedded["sample_id"].combine_chunks())
    samples, at = samples.filter(pc.is_valid(at)), at.filter(pc.is_valid(at))
    if samples.num_rows == 0:
        raise ValueError(
            f"model {folder.name} has no embeddings of test samples; run `ampere embed --embed.model {folder.name}`"
        )
    ids = samples["sample_id"].to_pylist()
    groups = query_groups(workspace, folder, ids, samples["extra"].to_pylist())
    vectors, domains = (
        stacked_vectors(embedded["vector"].take(at)),
        np.array(samples["domain"].to_pylist()),
    )
    products = np.array(samples["product_id"].to_pylist(), dtype=str)
    return {
        domain: Vectors(
            vectors=vectors[domains == domain],
            products=products[domains == domain],
            groups={way: names[domains == domain] for way, names in groups.items()},
            samples=np.array(ids)[domains == domain],
        )
        for domain in Domain
    }


def not_embedded(name: str, count: int, tested: int) -> str:
    return (
        f"{name}: {count} of {tested} test samples have no current embedding and are left out, of queries and "
        f"galleries; run `ampere embed --embed.model {name}`"
    )


def query_groups(
    workspace: Workspace, folder: Path, ids: list[str], extras: list[str | None]
) -> dict[str, NDArray[np.str_]]:
    """Ways to part samples: whether the model has text of them, and the catalogue's categories."""
    groups = {}
    source = text_source(folder)
    if source != "none":
        texts = sample_texts(workspace, source)
        groups["text"] = np.array(
            ["with text" if texts.get(sample_id) else "without" for sample_id in ids]
        )
    categories = [json.loads(extra).get(CATEGORY) if extra else None for extra in extras]
    if any(categories):
        groups[CATEGORY] = np.array(
            [str(category or "none")[:LONGEST_CATEGORY] for category in categories]
        )
    return groups
