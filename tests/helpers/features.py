"""Features of the frozen tower of `tests.helpers.training.FROZEN`, computed without Ray."""

import pyarrow as pa

from ampere.config.embed import EmbedSettings
from ampere.pipeline.embed import read_pixels
from ampere.pipeline.features import FeatureBatch, FeaturesStage
from ampere.store.workspace import Workspace
from tests.helpers.training import FROZEN


def features_stage(workspace: Workspace, tower: str, settings: EmbedSettings) -> FeaturesStage:
    """The stage of all samples."""
    return FeaturesStage(workspace, tower, FROZEN, FROZEN.image_size, settings)


def computed_features(workspace: Workspace, tower: str, settings: EmbedSettings) -> pa.Table:
    """Result rows of all samples."""
    stage = features_stage(workspace, tower, settings)
    pixels = read_pixels(stage.inputs(), stage.frames.uri, stage.frames.version, stage.image_size)
    return FeatureBatch(workspace.uri, FROZEN, FROZEN.image_size, settings)(pixels)
