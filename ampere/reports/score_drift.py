"""How much the answers of an index changed since the last run, on fixed stored samples.

The samples are those with the smallest checksums of their ids, so that every run asks the same
ones while they exist. Each is searched for by its stored vector.
"""

import heapq
import json
import zlib
from dataclasses import dataclass
from itertools import chain

from ampere.config.index import IndexSettings
from ampere.models.model_folder import embedding_name
from ampere.retrieval.query_vector import combine
from ampere.retrieval.request import SearchRequest
from ampere.store.embeddings import embeddings_spec
from ampere.store.indexes import open_engine
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace

ASKED = 200
TOP = 10
SCORES_REPORT = "run-scores.json"


@dataclass(frozen=True)
class Answer:
    """The best samples of all domains for a stored sample, without itself.

    Attributes:
        hits: ids of the first `TOP`.
        similarity: cosine of the first one; 0 if there is none.
    """

    hits: tuple[str, ...]
    similarity: float


@dataclass(frozen=True)
class Drift:
    """The change of the answers since the last run.

    Attributes:
        asked: samples that were asked now.
        compared: those of them that were asked in the last run, too; 0: there was none.
        overlap: mean share of equal hits among the first `TOP`.
        similarity_change: mean change of the first hit's similarity.
        model, model_before: the weights that made the vectors; "" before: there was no last run.
    """

    asked: int
    compared: int
    overlap: float
    similarity_change: float
    model: str
    model_before: str

    def __str__(self) -> str:
        if not self.compared:
            return f"{self.asked} samples asked for the first time"
        text = (
            f"top-{TOP} overlap {self.overlap:.1%}, similarity of the first hit "
            f"{self.similarity_change:+.4f} on average, {self.compared} samples"
        )
        if self.model != self.model_before:
            text += f"; the model changed from {self.model_before} to {self.model}"
        return text


def measure_drift(workspace: Workspace, settings: IndexSettings) -> Drift:
    """Ask the index, compare with the last run, and store the answers for the next one.

    Raises:
        FileNotFoundError: the model has no index.
        ConnectionError: Milvus does not answer.
    """
    model = embedding_name(model_folder(workspace, settings.model))
    answers = ask(workspace, model, settings)
    stored = json.loads(workspace.read_report(SCORES_REPORT) or '{"model": "", "answers": {}}')
    before = {
        sample: Answer(tuple(hits), similarity)
        for sample, (hits, similarity) in stored["answers"].items()
    }
    workspace.write_report(
        SCORES_REPORT,
        json.dumps(
            {
                "model": model,
                "answers": {
                    sample: (answer.hits, answer.similarity) for sample, answer in answers.items()
                },
            },
            ensure_ascii=False,
        ),
    )
    return compare(answers, before, model, stored["model"])


def ask(workspace: Workspace, model: str, settings: IndexSettings) -> dict[str, Answer]:
    """The answers of the index by sample id."""
    rows = workspace.table(embeddings_spec(model)).read(["sample_id"])
    chosen = heapq.nsmallest(
        ASKED,
        rows["sample_id"].to_pylist(),
        key=lambda sample: (zlib.crc32(sample.encode()), sample),
    )
    engine = open_engine(workspace, model, settings.engine, settings.uri)
    try:
        answers = {}
        for sample in chosen:
            request = SearchRequest(sample_id=sample, k=TOP, mode="vector")
            hits = engine.search(request, combine(request, {}, engine.vector_of(sample))).hits
            best = heapq.nlargest(
                TOP, chain.from_iterable(hits.values()), key=lambda hit: hit.score
            )
            answers[sample] = Answer(
                tuple(hit.sample_id for hit in best), float(best[0].score) if best else 0.0
            )
        return answers
    finally:
        engine.close()


def compare(
    now: dict[str, Answer], before: dict[str, Answer], model: str, model_before: str
) -> Drift:
    """The change of those answers that both runs have."""
    both = [(answer, before[sample]) for sample, answer in now.items() if sample in before]
    overlaps = [
        len({*new.hits} & {*old.hits}) / max(len(new.hits), len(old.hits), 1)
        if new.hits or old.hits
        else 1.0
        for new, old in both
    ]
    changes = [new.similarity - old.similarity for new, old in both]
    count = max(1, len(both))
    return Drift(
        asked=len(now),
        compared=len(both),
        overlap=sum(overlaps) / count,
        similarity_change=sum(changes) / count,
        model=model,
        model_before=model_before,
    )
