"""The evaluate stage: the six-task table of one or more models on the test products."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.config.evaluate import EvaluateSettings
from ampere.models.model_folder import embedding_name, summary_model, text_source
from ampere.pipeline.runner.report import Report
from ampere.records import SAMPLES, Domain, Split
from ampere.retrieval.evaluation import (
    Results,
    compare,
    evaluate_model,
    evaluate_tasks,
    same_samples,
)
from ampere.retrieval.metrics import Vectors
from ampere.retrieval.modalities import (
    QUERIES,
    evaluate_alone,
    format_alone,
    neighbors_without_text,
)
from ampere.retrieval.segments import stacked_vectors
from ampere.retrieval.tables import format_comparison, format_groups, format_table
from ampere.retrieval.word_modes import evaluate_word_modes, format_word_modes
from ampere.store.embeddings import embeddings_spec
from ampere.store.models import model_folder
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace

CATEGORY = "category"  # queries are grouped by this catalog column, if there is one
MAX_CATEGORY_LENGTH = 100  # a numpy array stores every string at the length of the longest
TEST_SAMPLES = (pc.field("split") == Split.TEST) & pc.field("product_id").is_valid()


def evaluate(workspace: Workspace, settings: EvaluateSettings) -> Report:
    """Evaluate each model by exact search over the test split; write reports/evaluation.json.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a model has no embeddings of test samples with a known product, or two models to
            compare have embeddings of different samples.
    """
    start = time.monotonic()
    names = settings.compare or settings.models
    folders = {name: model_folder(workspace, name) for name in names}
    vectors = {name: test_vectors(workspace, folder) for name, folder in folders.items()}
    results = {name: evaluate_tasks(by_domain) for name, by_domain in vectors.items()}
    total = workspace.table(SAMPLES).count(TEST_SAMPLES)
    missing = {
        name: total - sum(len(of_domain.products) for of_domain in by_domain.values())
        for name, by_domain in vectors.items()
    }
    entries: list[dict[str, Any]] = [
        {"name": name, "test_samples": total, "without_embedding": missing[name]}
        | evaluate_model(embedding_name(folders[name]), results[name])
        | evaluate_modalities(workspace, folders[name], vectors[name])
        for name in results
    ]
    # The first model's entry is the top level of the report.
    report = entries[0] | {"compared": entries[1:]}
    notes = [
        format_table([entry | {"model": entry["name"]} for entry in entries]),
        format_groups(entries[0]),
        *(line for entry in entries for line in format_alone(entry["name"], entry)),
        *(line for entry in entries for line in format_word_modes(entry["name"], entry["words"])),
    ]
    if settings.compare:
        report["comparison"] = comparison = compare_models(results, *settings.compare)
        notes.append(format_comparison(*settings.compare, comparison))
    where = workspace.write_report(
        "evaluation.json", json.dumps(without_nan(report), indent=2, ensure_ascii=False)
    )
    queries = sum(int(scores["queries"]) for scores in entries[0]["tasks"].values())
    notes += [
        f"{name}: {count} queries have no sample of their product in the gallery and are excluded"
        for name, of_model in results.items()
        if (count := sum(result.unanswered for result in of_model.values()))
    ]
    notes += [
        missing_embeddings_note(name, count, total) for name, count in missing.items() if count
    ]
    return Report("evaluate", where, done=queries, seconds=time.monotonic() - start, notes=notes)


def evaluate_modalities(
    workspace: Workspace, folder: Path, gallery: Mapping[Domain, Vectors]
) -> dict[str, Any]:
    """Return the scores of queries of one modality, and where samples without text lie.

    Returns:
        `alone`, as `evaluate_alone`, empty for a model that does not embed both modalities;
        `without_text`, as `neighbors_without_text`; and `words`, as `evaluate_word_modes`.
    """
    has_groups = all("text" in of_domain.groups for of_domain in gallery.values())
    queries = {
        modality: alone
        for modality in QUERIES
        if (alone := alone_vectors(workspace, folder, gallery, modality))
    }
    return {
        "alone": evaluate_alone(queries, gallery),
        "without_text": neighbors_without_text(gallery) if has_groups else None,
        "words": word_modes(workspace, folder, queries.get("text"), gallery),
    }


def word_modes(
    workspace: Workspace,
    folder: Path,
    queries: Mapping[Domain, Vectors] | None,
    gallery: Mapping[Domain, Vectors],
) -> dict[str, Any]:
    """Return the scores of queries of words by mode; empty for a model without text vectors."""
    table = workspace.table(embeddings_spec(embedding_name(folder)))
    dataset = table.dataset()
    if not queries or dataset is None:
        return {}
    rows = table.read(["sample_id", "text"], pc.field("split") == str(Split.TEST))
    texts = dict(zip(rows["sample_id"].to_pylist(), rows["text"].to_pylist(), strict=True))
    with_text = {
        domain: take_rows(of_domain, [bool(texts.get(name)) for name in of_domain.samples])
        for domain, of_domain in queries.items()
    }
    return evaluate_word_modes(dataset, with_text, texts, gallery)


def take_rows(vectors: Vectors, mask: Sequence[bool]) -> Vectors:
    """Return some rows of the vectors of a domain."""
    chosen = np.array(mask, bool)
    return Vectors(
        vectors=vectors.vectors[chosen],
        products=vectors.products[chosen],
        samples=vectors.samples[chosen],
    )


def alone_vectors(
    workspace: Workspace, folder: Path, gallery: Mapping[Domain, Vectors], modality: str
) -> dict[Domain, Vectors]:
    """Return the vectors of one modality of the samples of a gallery; empty if there are none.

    A sample without text is its frames alone.

    Args:
        workspace: with the embeddings.
        folder: of the model.
        gallery: whole test samples by domain.
        modality: `frames` or `text`.
    """
    column = f"{modality}_vector"
    table = workspace.table(embeddings_spec(embedding_name(folder)))
    rows = table.read(["sample_id", column])
    rows = rows.filter(pc.is_valid(rows[column]))
    if not rows.num_rows:
        return {}
    by_domain = {}
    for domain, whole in gallery.items():
        at = pc.index_in(rows["sample_id"], value_set=pa.array(whole.samples, pa.string()))
        at = at.combine_chunks()
        vectors, has_vector = whole.vectors.copy(), np.zeros(len(whole.samples), bool)
        if len(places := at.drop_null().to_numpy()):
            vectors[places] = stacked_vectors(rows[column].filter(pc.is_valid(at)))
            has_vector[places] = True
        if modality == "frames" and "text" in whole.groups:
            has_vector |= whole.groups["text"] == "without"
        by_domain[domain] = Vectors(
            vectors=vectors[has_vector],
            products=whole.products[has_vector],
            samples=whole.samples[has_vector],
        )
    return by_domain


def compare_models(results: dict[str, Results], first: str, second: str) -> dict[str, Any]:
    """Return the gain of the second model over the first; see `compare`.

    Raises:
        ValueError: they were evaluated on different queries or galleries.
    """
    if not same_samples(results[first], results[second]):
        raise ValueError(
            f"{first} and {second} have embeddings of different samples. "
            f"Run `ampere embed` for both"
        )
    return compare(results[first], results[second])


def without_nan(value: Any) -> Any:
    """Return the value with None in place of NaN, which JSON cannot represent."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def test_vectors(workspace: Workspace, folder: Path) -> dict[Domain, Vectors]:
    """Return a model's embeddings of the test samples by domain, in the order of sample ids.

    Products and domains are those of the current catalog. Samples without a known product, or
    without an embedding from the model's current weights, are excluded.

    Raises:
        ValueError: no test sample has an embedding.
    """
    table = workspace.table(SAMPLES)
    columns = ["sample_id", "product_id", "domain"]
    columns += [name for name in table.schema().names if name == CATEGORY]
    samples = table.read(columns, TEST_SAMPLES).sort_by("sample_id")
    embeddings = workspace.table(embeddings_spec(embedding_name(folder)))
    embedded = embeddings.read(["sample_id", "vector"])
    at = pc.index_in(samples["sample_id"], value_set=embedded["sample_id"].combine_chunks())
    samples, at = samples.filter(pc.is_valid(at)), at.filter(pc.is_valid(at))
    if samples.num_rows == 0:
        raise ValueError(
            f"model {folder.name} has no embeddings of test samples. "
            f"Run `ampere embed --embed.model {folder.name}`"
        )
    ids = samples["sample_id"].to_pylist()
    categories = samples[CATEGORY].to_pylist() if CATEGORY in columns else []
    groups = query_groups(workspace, folder, ids, categories)
    vectors = stacked_vectors(embedded["vector"].take(at))
    domains = np.array(samples["domain"].to_pylist())
    products = np.array(samples["product_id"].to_pylist(), dtype=str)
    return {
        domain: Vectors(
            vectors=vectors[domains == domain],
            products=products[domains == domain],
            groups={name: values[domains == domain] for name, values in groups.items()},
            samples=np.array(ids)[domains == domain],
        )
        for domain in Domain
    }


def missing_embeddings_note(name: str, count: int, total: int) -> str:
    """Return a line on test samples without an embedding from a model's current weights."""
    return (
        f"{name}: {count} of {total} test samples have no embedding from the current weights and "
        f"are excluded; run `ampere embed --embed.model {name}`"
    )


def query_groups(
    workspace: Workspace, folder: Path, ids: list[str], categories: list[Any]
) -> dict[str, NDArray[np.str_]]:
    """Return groups of samples: with or without text for the model, and by catalog category.

    Args:
        categories: of the samples; empty if the catalog has none.
    """
    groups = {}
    source = text_source(folder)
    if source != "none":
        texts = texts_of(workspace, source, ids, summary_model(folder)).to_pylist()
        groups["text"] = np.array(["with text" if text else "without" for text in texts])
    if any(categories):
        groups[CATEGORY] = np.array(
            [str(category or "none")[:MAX_CATEGORY_LENGTH] for category in categories]
        )
    return groups
