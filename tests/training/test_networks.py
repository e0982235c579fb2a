"""The comparison networks go through the same training, saving and embedding as AMPere."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import ChineseCLIPModel

from ampere.config.model import ModelSettings
from ampere.models.cn_clip import CNCLIP
from ampere.models.embedder import Embedder
from ampere.models.mllm import MLLMEmbedder
from ampere.models.model_folder import SETTINGS_FILE, frame_view
from ampere.models.networks import load_network, pretrained_tokenizer
from ampere.pipeline.train.worker import save_model
from ampere.records import Domain
from ampere.training.data import TrainingSet
from ampere.training.loop import Trained, Training, TrainJob, build_model
from tests.helpers.models import llava, save_tiny_clip
from tests.helpers.training import SIZES, MemoryFrames, small_job, small_set


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    """Settings of a CN-CLIP with a folder like those of the hub."""
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder)
    return dataclasses.replace(SIZES, network="cn-clip", weights=str(folder))


@pytest.fixture(scope="module")
def mllm(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    """Settings of a multimodal language model with a folder like those of the hub."""
    folder = tmp_path_factory.mktemp("mllm")
    for part in llava():
        part.save_pretrained(folder)
    return dataclasses.replace(SIZES, network="mllm", weights=str(folder))


def job_of(sizes: ModelSettings, training_set: TrainingSet, **train: object) -> TrainJob:
    job = small_job(training_set, **train)
    return dataclasses.replace(job, model=sizes, tokenizer=pretrained_tokenizer(sizes))


def trained(job: TrainJob, frames: MemoryFrames) -> tuple[Trained, list[dict[str, float]]]:
    training = Training(job, frames)
    return training.run(on_metrics=lambda metrics: None), training.history


def loss_falls(history: list[dict[str, float]]) -> bool:
    """Whether the contrastive loss is lower in the second half of the steps than in the first."""
    losses = [metrics["contrastive"] for metrics in history]
    half = len(losses) // 2
    return sum(losses[half:]) < 0.95 * sum(losses[:half])


def embedder(job: TrainJob, result: Trained, folder: Path) -> Embedder:
    """The embedder of a model folder written by training."""
    save_model(result, [], job, folder, first=True)
    (folder / SETTINGS_FILE).write_text(json.dumps({"train": {"text": job.train.text}}))
    return Embedder(folder)


def embedded(embedder: Embedder, frames: MemoryFrames, texts: list[str | None]) -> np.ndarray:
    names = ["short-00-0", "page-01-0", "live-02-1"]
    return embedder.embed(frames.take(names), texts, [Domain.SHORT, Domain.PAGE, Domain.LIVE])


@pytest.mark.parametrize(("combine", "width"), [("mean", 12), ("concat", 24), ("visual", 12)])
def test_cn_clip_is_finetuned_saved_and_embeds(
    clip: ModelSettings, tmp_path: Path, combine: str, width: int
) -> None:
    training_set, frames = small_set(8)
    text = "none" if combine == "visual" else "raw"
    sizes = dataclasses.replace(clip, combine=combine)  # type: ignore[arg-type]
    job = job_of(sizes, training_set, text=text, epochs=40)
    result, history = trained(job, frames)
    assert loss_falls(history)
    ours = embedder(job, result, tmp_path)
    assert type(ours.model) is CNCLIP
    with_text = embedded(ours, frames, ["product 0", "product 1", None])
    assert with_text.shape == (3, width)
    without = embedded(ours, frames, [None] * 3)
    assert np.array_equal(with_text, without) == (combine == "visual")
    assert combine in (tmp_path / "README.md").read_text()


def test_zero_shot_cn_clip_has_the_pretrained_weights(clip: ModelSettings, tmp_path: Path) -> None:
    training_set, frames = small_set(4)
    job = job_of(clip, training_set, text="raw", epochs=0)
    ours = embedder(job, trained(job, frames)[0], tmp_path)
    theirs = ChineseCLIPModel.from_pretrained(clip.weights).state_dict()
    saved = ours.model.clip.state_dict()
    assert saved.keys() == theirs.keys() and all(
        torch.equal(saved[name], theirs[name]) for name in theirs
    )


def test_mllm_trains_its_linear_layer_only(mllm: ModelSettings, tmp_path: Path) -> None:
    training_set, frames = small_set(8)
    job = job_of(mllm, training_set, epochs=40)
    base = build_model(job).base.state_dict()
    result, history = trained(job, frames)
    assert loss_falls(history)
    # Every sample was encoded once, with the pixels of embedding, though each was drawn 20 times.
    samples = sum(
        len(ids) for domains in training_set.products.values() for ids in domains.values()
    )
    assert len(result.model.kept) <= samples
    assert all(
        torch.equal(weight, base[name]) for name, weight in result.model.base.state_dict().items()
    )
    ours = embedder(job, result, tmp_path)
    assert type(ours.model) is MLLMEmbedder
    with_text = embedded(ours, frames, ["product 0", "product 1", None])
    assert with_text.shape == (3, SIZES.embedding_dim)
    assert not np.array_equal(with_text, embedded(ours, frames, [None] * 3))


def test_baselines_read_the_view_of_their_settings(
    clip: ModelSettings, mllm: ModelSettings, tmp_path: Path
) -> None:
    training_set, _ = small_set(4)
    for sizes in (clip, mllm):
        job = job_of(dataclasses.replace(sizes, view="whole"), training_set, text="raw", epochs=0)
        model = build_model(job)
        folder = tmp_path / sizes.network
        model.save_pretrained(folder, job.tokenizer)
        assert model.view == load_network(folder).view == frame_view(folder) == "whole"


def test_mllm_without_linear_layer_has_nothing_to_train(
    mllm: ModelSettings, tmp_path: Path
) -> None:
    training_set, frames = small_set(4)
    sizes = dataclasses.replace(mllm, linear_layer=False)
    with pytest.raises(ValueError, match="no weights to train.*epochs 0"):
        Training(job_of(sizes, training_set), frames)
    job = job_of(sizes, training_set, epochs=0)
    assert embedded(embedder(job, trained(job, frames)[0], tmp_path), frames, [None] * 3).shape == (
        3,
        32,
    )


def test_checkpoint_has_trainable_weights_only(tmp_path: Path) -> None:
    """Tied embeddings could not even be saved: safetensors accepts no shared memory."""
    source, saved = tmp_path / "mllm", tmp_path / "checkpoint"
    for part in llava(tied=True):
        part.save_pretrained(source)
    training_set, frames = small_set(8)
    products = dict(training_set.products)
    validation = {product: products.pop(product) for product in ("p06", "p07")}
    training_set = dataclasses.replace(training_set, products=products, validation=validation)
    sizes = dataclasses.replace(SIZES, network="mllm", weights=str(source))
    job = job_of(sizes, training_set, epochs=3, checkpoint_every=2, validate_every=1)
    training = Training(job, frames)
    words = training.model.base.get_input_embeddings().weight
    assert words.data_ptr() == training.model.base.get_output_embeddings().weight.data_ptr()
    whole = training.run(on_metrics=lambda metrics: None, checkpoint=lambda save: save(saved))
    for name in ("model.safetensors", "best.safetensors"):
        assert load_file(saved / name).keys() == {"probe.weight", "probe.bias"}
    resumed = Training(job, frames)
    resumed.load(saved)
    assert resumed.done == 2
    again = resumed.run(on_metrics=lambda metrics: None)
    assert (
        torch.equal(again.model.probe.weight, whole.model.probe.weight)
        and again.scores == whole.scores
    )


def test_chunked_cn_clip_batch_has_the_gradients_of_the_whole(clip: ModelSettings) -> None:
    training_set, frames = small_set(8)
    gradients = []
    for chunk_size in (0, 3):
        training = Training(job_of(clip, training_set, text="raw", chunk_size=chunk_size), frames)
        training.step.backward(training.batches[0], seed=0)
        gradients.append(
            [p.grad.clone() for p in training.model.parameters() if p.grad is not None]
        )
    assert gradients[0]
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-6)


def test_folder_without_a_known_network_raises(clip: ModelSettings) -> None:
    with pytest.raises(
        ValueError, match="unknown architecture in .*: None; expected one of AMPere, CNCLIP, MLLM"
    ):
        load_network(clip.weights)


def test_model_settings_that_contradict_each_other_raise() -> None:
    with pytest.raises(ValueError, match=r"model.network is cn-clip and model.weights is ''"):
        ModelSettings(network="cn-clip")
    with pytest.raises(ValueError, match=r"model.network is ampere and model.weights is 'x'"):
        ModelSettings(weights="x")
