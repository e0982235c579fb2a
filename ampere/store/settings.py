"""The settings that a stage last ran with."""

from typing import TYPE_CHECKING

from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    pass
import json
from typing import TypeVar

from ampere.config.decode import DecodeSettings
from ampere.config.summarize import SummarizeSettings


def settings_report(stage: str) -> str:
    """Name of the report that holds the settings a stage last ran with."""
    return f"{stage}-settings.json"


SettingsPart = TypeVar("SettingsPart", DecodeSettings, SummarizeSettings)


def last_settings(workspace: Workspace, stage: str, otherwise: SettingsPart) -> SettingsPart:
    """The settings that a stage last ran with; those of the preset if it never ran."""
    saved = workspace.read_report(settings_report(stage))
    return otherwise if saved is None else type(otherwise)(**json.loads(saved))
