"""The summary methods that need no vLLM engine: keybert, uie, and raw transcripts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ampere.config.checks import worker_range
from ampere.config.summarize import SummarizeSettings
from ampere.models.model_folder import model_identity
from ampere.pipeline.runner.ray_data import ATTEMPTS_BEFORE_ISOLATION, map_batches
from ampere.pipeline.runner.stage import Work, error_row, result_table
from ampere.pipeline.summarize.rows import missing_row, model_name, transcripts
from ampere.records import SUMMARIES
from ampere.store.transcripts import SampleTexts
from ampere.text.clean import clean
from ampere.text.normalize import readable_text
from ampere.text.summary import Status

if TYPE_CHECKING:
    import ray.data


def extracts(work: Work, settings: SummarizeSettings, texts: SampleTexts) -> "ray.data.Dataset":
    """Result rows of actors that hold a summarizer each, one batch per call."""
    from ray.data import ActorPoolStrategy

    min_workers, max_workers = worker_range("summarize.workers", settings.workers)
    return map_batches(
        work.blocks,
        ExtractBatch,
        attempts=ATTEMPTS_BEFORE_ISOLATION,
        fn_constructor_kwargs={
            "settings": settings,
            "weights": extractor_identity(settings),
            "texts": texts,
        },
        compute=ActorPoolStrategy(min_size=min_workers, max_size=max_workers),
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=settings.cpus,
        num_gpus=settings.gpus,
    )


def extractor_identity(settings: SummarizeSettings) -> str | None:
    """Identity of the files of a method's model; None if the method has no model."""
    source = {"keybert": settings.encoder, "uie": settings.extractor}.get(settings.method)
    return source and model_identity(source)


class ExtractBatch:
    """The actor: holds one summarizer, and summarizes the transcripts of a batch one by one.

    Args:
        settings: of the stage.
        weights: identity of the model's files; None: the method has no model.
        texts: that the positions refer to.
    """

    def __init__(
        self, settings: SummarizeSettings, weights: str | None, texts: SampleTexts
    ) -> None:
        self.key = {"method": settings.method, "model": model_name(settings)}
        self.weights = weights
        self.texts = texts
        self.summarizer = summarizer(settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows with sample_id, fingerprint and position to result rows."""
        rows = []
        for row, text in transcripts(self.texts, batch):
            try:
                rows.append(self._result(row, text))
            except Exception as error:  # the per-row edge: a strange transcript fails one row
                rows.append(error_row(**row, error=error))
        return result_table(SUMMARIES, rows)

    def _result(self, row: dict[str, str], text: str) -> dict[str, Any]:
        from ampere.text.checks.audit import audit

        cleaned = clean(text)
        if not readable_text(cleaned):
            return missing_row(**row, **self.key)
        fields = self.summarizer(text)
        name, features = fields.get("product_name"), fields.get("product_features")
        made = {"weights": self.weights, "flags": audit(cleaned, name or "", features or ())}
        return row | self.key | made | fields


def summarizer(settings: SummarizeSettings) -> Callable[[str], dict[str, Any]]:
    """The method's function from a transcript to columns of the summaries table."""
    if settings.method == "raw":
        return raw
    device = "cuda" if settings.gpus else "cpu"
    if settings.method == "keybert":
        from ampere.text.keybert import Keywords

        return Keywords(settings.encoder, device)
    from ampere.text.uie import Extractor

    return Extractor(settings.extractor, device)


def raw(transcript: str) -> dict[str, Any]:
    """The transcript itself as the model's text."""
    return {"text": transcript.strip(), "status": Status.OK}
