"""Which stages a run does not need, each with its reason."""

import dataclasses
from collections.abc import Collection
from typing import cast

import pyarrow.compute as pc

from ampere.config.settings import Settings
from ampere.config.summarize import SummarizeSettings, SummaryMethod, TextSource
from ampere.models.model_folder import text_source
from ampere.pipeline.evaluate import TEST_SAMPLES
from ampere.records import CLIP_DOMAINS, SAMPLES, TRANSCRIPTS, Split
from ampere.store.models import model_folder
from ampere.store.texts import IS_LIVE, method_of
from ampere.store.workspace import Workspace

TRAINABLE = (pc.field("split") == Split.TRAIN) & pc.field("product_id").is_valid()
IS_CLIP = pc.field("domain").isin([str(domain) for domain in CLIP_DOMAINS])
HAS_TEXT = pc.field("text").is_valid() & (pc.field("text") != "")


def has_model(workspace: Workspace, settings: Settings) -> bool:
    """Whether the model that these settings train is in the workspace."""
    return settings.train.name in workspace.names("models")


def source_read(workspace: Workspace, settings: Settings) -> TextSource:
    """What the model reads as text: as it was trained, or else as the settings say."""
    if has_model(workspace, settings):
        return text_source(model_folder(workspace, settings.train.name))
    return settings.train.text


def no_transcripts_reason(workspace: Workspace, settings: Settings, naming: str = "") -> str:
    """Why no clip is transcribed; empty if the stage has to run.

    Args:
        workspace: with the clips.
        settings: of the transcripts.
        naming: as `naming_reason`.
    """
    from ampere.text.speech_engines.checks import missing_engine

    samples = workspace.table(SAMPLES)
    if not samples.count(IS_CLIP):
        return "the catalog has no clips"
    if naming:
        return naming
    if not samples.count(IS_CLIP & ~HAS_TEXT & ~IS_LIVE):
        return "every clip of the catalog has a text"
    return missing_engine(settings.transcribe) or ""


def no_summaries_reason(workspace: Workspace, settings: Settings) -> str:
    """Why no transcript is summarized; empty if the stage has to run."""
    source = source_read(workspace, settings)
    if method_of(source) in ("raw", "none"):
        return f"the model {settings.train.name} reads no summaries (its text is {source})"
    return ""


def summaries_read(workspace: Workspace, settings: Settings) -> SummarizeSettings:
    """The settings of the summaries that the model reads, of which there must be some."""
    method = cast(SummaryMethod, method_of(source_read(workspace, settings)))
    return dataclasses.replace(settings.summarize, method=method)


def no_training_reason(workspace: Workspace, settings: Settings, *, is_asked: bool) -> str:
    """Why no model is trained; empty if the stage has to run.

    Args:
        workspace: with the models.
        settings: of the model.
        is_asked: whether the run begins with the training.
    """
    if not settings.train.epochs:
        return f"the model {settings.train.name} needs no training; embed saves it as it is"
    if has_model(workspace, settings) and not is_asked:
        return f"the model {settings.train.name} exists; --from train trains it again"
    return ""


def no_evaluation_reason(workspace: Workspace) -> str:
    """Why nothing can be evaluated; empty if the stage has to run."""
    if workspace.table(SAMPLES).count(TEST_SAMPLES):
        return ""
    return "no test sample has a product_id to compare answers with"


def no_products_reason(workspace: Workspace, settings: Settings) -> str:
    """Why the model cannot be trained on this catalog; empty if it can."""
    if workspace.table(SAMPLES).count(TRAINABLE):
        return ""
    return (
        f"cannot train the model {settings.train.name}: no sample has a product_id and the split "
        "train. Give --preset small+zero-shot, which searches by pictures without a training, or a "
        "--manifest with the column product_id"
    )


def check_trains_nothing(
    workspace: Workspace | None, settings: Settings, stages: Collection[str]
) -> None:
    """Refuse a media folder with settings that train, before anything is read.

    Args:
        workspace: None: it is new.
        settings: of the model.
        stages: of the run.

    Raises:
        ValueError: the model would be trained, and there are no products to train it on.
    """
    if "train" not in stages or not settings.train.epochs:
        return
    if workspace is not None and (
        has_model(workspace, settings) or not no_products_reason(workspace, settings)
    ):
        return
    raise ValueError(
        f"cannot train the model {settings.train.name}: a media folder names no products. Give "
        "--preset small+zero-shot, which searches by pictures without a training, or a --manifest "
        "with the column product_id"
    )


def naming_reason(workspace: Workspace | None, settings: Settings, stages: Collection[str]) -> str:
    """Why the clips of a media folder get their names as text; empty if they are transcribed.

    Where transcripts were made before they keep them: a text of the catalog would come first.

    Args:
        workspace: None: it is new.
        settings: of the transcripts.
        stages: of the run.
    """
    from ampere.text.speech_engines.checks import missing_engine

    reason = missing_engine(settings.transcribe) if "transcribe" in stages else None
    if not reason or (workspace is not None and workspace.table(TRANSCRIPTS).count()):
        return ""
    return f"{reason.rstrip('.')}. Clips have their file names as text, so that words find them"
