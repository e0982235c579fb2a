"""The settings that a stage last ran with."""

import json
from typing import TypeVar

from ampere.config.decode import DecodeSettings
from ampere.config.index import IndexSettings
from ampere.config.summarize import SummarizeSettings
from ampere.config.transcribe import TranscribeSettings
from ampere.store.workspace import Workspace

StageSettings = TypeVar(
    "StageSettings", DecodeSettings, TranscribeSettings, SummarizeSettings, IndexSettings
)


def settings_report(stage: str) -> str:
    """Name of the report that holds the settings of a stage's last run."""
    return f"{stage}-settings.json"


def last_settings(workspace: Workspace, stage: str, default: StageSettings) -> StageSettings:
    """The settings of a stage's last run; the default if it never ran."""
    saved = workspace.read_report(settings_report(stage))
    return default if saved is None else type(default)(**json.loads(saved))
