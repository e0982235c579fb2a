"""Saves the model of a preset that trains nothing, such as `small+zero-shot`, without Ray.

`ampere embed` calls this, so that a search without labels needs no `ampere train`.
"""

import tempfile
from pathlib import Path

from ampere.config.settings import Settings
from ampere.models.card import write_model_card
from ampere.models.model_folder import SETTINGS_FILE
from ampere.models.networks import check_weights
from ampere.pipeline.train.stage import tokenizer_for, write_settings
from ampere.store.workspace import Workspace
from ampere.training.data import TrainingSet
from ampere.training.loop import TrainJob, build_model


def save_untrained(workspace: Workspace, settings: Settings) -> bool:
    """Save models/NAME of settings with 0 epochs, unless the workspace has a model of that name.

    Returns:
        Whether a model was saved.

    Raises:
        ValueError, OSError: the weights in the settings are not found or do not fit.
    """
    train, model = settings.train, settings.model
    if train.epochs or train.start_from or train.name in workspace.names("models"):
        return False
    check_weights(model)
    nothing = TrainingSet(products={}, texts={})
    job = TrainJob(
        training_set=nothing,
        tokenizer=tokenizer_for(nothing, model, None),
        model=model,
        train=train,
    )
    network = build_model(job).eval()
    with workspace.lock(f"models-{train.name}"), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network.save_pretrained(folder, job.tokenizer)
        write_model_card(folder, network, {"text": train.text, "epochs": 0})
        # No fingerprint of a training: `ampere train` would save the same weights again.
        write_settings(folder, job, "", {})
        workspace.publish(folder, f"models/{train.name}", last=SETTINGS_FILE)
    return True
