"""Trainings with LoRA adapters: resumed, and what they return. Two ranks are in test_under_ddp."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ampere.models.checkpoint import copy_tensors
from ampere.models.networks import pretrained_tokenizer
from ampere.training.loop import Training, TrainJob, build_model
from ampere.training.validation import validation_score
from tests.helpers.models import random_frames, random_tokens
from tests.helpers.training import SIZES, MemoryFrames
from tests.models.test_towers import save_encoder, save_roberta
from tests.training.test_state import curve, resumable_job, run


@pytest.fixture
def towers(tmp_path: Path) -> Path:
    return save_towers(tmp_path / "towers")


def save_towers(folder: Path) -> Path:
    """Save a published tower of either kind."""
    save_encoder("clip", folder / "vision")
    save_roberta(folder / "text").save_pretrained(folder / "text")
    return folder


def lora_job(towers: Path, **train: object) -> tuple[TrainJob, MemoryFrames]:
    job, frames = resumable_job(lora_rank=2, **train)
    model = dataclasses.replace(
        SIZES, vision_weights=str(towers / "vision"), text_weights=str(towers / "text")
    )
    return dataclasses.replace(job, model=model, tokenizer=pretrained_tokenizer(model)), frames


def test_resumed_training_with_adapters_equals_an_uninterrupted_one(
    towers: Path, tmp_path: Path
) -> None:
    """A checkpoint has the adapters in place of their towers."""
    whole, weights = run(*lora_job(towers), tmp_path / "none")
    before, _ = run(*lora_job(towers), tmp_path / "run", stop_at=8)
    stored = load_file(tmp_path / "run" / "model.safetensors")
    in_towers = [name for name in stored if name.startswith(("video.tower.", "text."))]
    assert in_towers and all(".lora_" in name for name in in_towers)
    after, resumed = run(*lora_job(towers), tmp_path / "run")
    assert curve(before) == curve(whole)[:8] and curve(after) == curve(whole)
    for name, weight in weights.items():
        assert torch.equal(resumed[name], weight), name
    plain = build_model(lora_job(towers, epochs=0)[0]).state_dict()
    assert weights.keys() - {"centers"} == plain.keys()
    changed = {name for name, weight in plain.items() if not torch.equal(weight, weights[name])}
    assert {name for name in changed if name.startswith("text.")} == {
        name for name in plain if name.startswith("text.encoder.") and "attention" in name
        and name.endswith("weight") and "LayerNorm" not in name
    }  # fmt: skip


def test_best_and_last_weights_are_those_with_their_adapters(towers: Path) -> None:
    job, frames = lora_job(towers, epochs=2, validate_every=0)
    training = Training(job, frames)
    inputs = random_frames(2, 2), *random_tokens(2, 5)
    vectors = []

    def after_step(metrics: dict[str, float]) -> None:
        vectors.append(training.model.eval()(*inputs).detach())
        training.model.train()
        if metrics["step"] == 3:
            training.best = {"step": 3, "validation_mR1": 200.0}
            training.best_weights = training.weights()

    trained = training.run(after_step)
    assert training.done == 6 and trained.last is not None and trained.scores["step"] == 3
    assert not torch.allclose(vectors[2], vectors[5], atol=1e-3)
    torch.testing.assert_close(trained.model(*inputs), vectors[2], atol=1e-5, rtol=0)
    own = {name: trained.model.get_parameter(name) for name in trained.last}
    copy_tensors(own, trained.last, source="the last step")
    torch.testing.assert_close(trained.model(*inputs), vectors[5], atol=1e-5, rtol=0)


def test_score_is_that_of_the_returned_model(towers: Path) -> None:
    job, frames = lora_job(towers)
    trained = Training(job, frames).run(lambda metrics: None)
    score = validation_score(trained.model, job.tokenizer, job.training_set, frames)
    assert score == trained.scores["validation_mR1"]
