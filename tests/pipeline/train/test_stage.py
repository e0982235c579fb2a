"""The train stage without Ray: inputs, fingerprint, tokenizer, checks and notes."""

import dataclasses
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.config.train import TrainSettings
from ampere.models.model_folder import summary_model
from ampere.pipeline.train import stage
from ampere.pipeline.train.stage import (
    check_frame_count,
    read_training_set,
    run_training,
    tokenizer_for,
    training_fingerprint,
)
from ampere.pipeline.train.worker import TrainInputs
from ampere.records import FRAMES, SAMPLES, SUMMARIES, Domain
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace
from ampere.training.data import Products, TrainingSet
from ampere.training.loop import build_model
from tests.helpers.training import SIZES, MemoryFrames, small_job, small_set, solid_frames


def store(workspace: Workspace, frames: MemoryFrames) -> None:
    """Write the frames to the frames table."""
    workspace.table(FRAMES).append(
        [
            {"sample_id": name, "fingerprint": "f", "frames": jpegs}
            for name, jpegs in frames.frames.items()
        ]
    )


def test_missing_frames_stop_a_training_before_any_work(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--workspace", workspace.uri]) == 2
    assert "run `ampere decode` first" in capsys.readouterr().err


def test_training_fingerprint_has_not_changed(workspace: Workspace) -> None:
    """Another value would make every trained model stale; raise TRAIN_VERSION if that is meant."""
    training_set, frames = small_set(3)
    store(workspace, frames)
    train = small_job(training_set).train
    value = training_fingerprint(LanceFrames(workspace), training_set, SIZES, train, None)
    assert value == "ff5114c959663af5"


def test_training_fingerprint_depends_on_products_domains_and_validation(
    workspace: Workspace,
) -> None:
    """Also where products, samples and texts are the same, as in a corrected catalog."""
    training_set, frames = small_set(3)
    store(workspace, frames)

    def made_from(products: Products, validation: Products) -> str:
        changed = dataclasses.replace(training_set, products=products, validation=validation)
        return training_fingerprint(
            LanceFrames(workspace), changed, SIZES, small_job(training_set).train, None
        )

    products = {product: dict(domains) for product, domains in training_set.products.items()}
    validation = {"p02": products.pop("p02")}
    before = made_from(products, validation)
    assert made_from(dict(reversed(products.items())), validation) == before
    one, other = products["p00"], products["p01"]
    exchanged = {
        "p00": one | {Domain.LIVE: other[Domain.LIVE]},
        "p01": other | {Domain.LIVE: one[Domain.LIVE]},
    }
    moved = {
        "p00": one | {Domain.LIVE: one[Domain.SHORT], Domain.SHORT: one[Domain.LIVE]},
        "p01": other,
    }
    reordered = {"p02": dict(zip(Domain, reversed(validation["p02"].values()), strict=True))}
    after = [
        made_from(exchanged, validation),
        made_from(moved, validation),
        made_from(products, reordered),
    ]
    assert len({before, *after}) == 4


def test_training_fingerprint_depends_on_the_content_of_local_weights(
    workspace: Workspace, tmp_path: Path
) -> None:
    training_set, frames = small_set(2)
    store(workspace, frames)
    file, folder = tmp_path / "k600.pth", tmp_path / "bert"
    folder.mkdir()
    changed = [file, folder / "model.safetensors", folder / "vocab.txt"]
    for path in changed:
        path.write_bytes(b"1")
    model = dataclasses.replace(SIZES, vision_weights=str(file), text_weights=str(folder))

    def made_from() -> str:
        train = small_job(training_set).train
        return training_fingerprint(LanceFrames(workspace), training_set, model, train, None)

    fingerprints = {made_from()}
    for path in changed:
        path.write_bytes(b"2 ")
        fingerprints.add(made_from())
    assert len(fingerprints) == 1 + len(changed)


def test_training_uses_the_tokenizer_of_the_text_tower_it_starts_from(tmp_path: Path) -> None:
    training_set, _ = small_set(4)
    others = TrainingSet(products=training_set.products, texts={"x": "quite different words"})
    job, images_only = small_job(training_set), small_job(training_set, text="none")
    build_model(job).save_pretrained(tmp_path / "text", job.tokenizer)
    build_model(images_only).save_pretrained(tmp_path / "images", images_only.tokenizer)
    theirs = job.tokenizer.get_vocab()  # type: ignore[union-attr]
    fresh = tokenizer_for(others, SIZES, None).get_vocab()  # type: ignore[union-attr]
    assert theirs != fresh
    starts = {name: tokenizer_for(others, SIZES, tmp_path / name) for name in ("text", "images")}
    assert starts["text"].get_vocab() == theirs  # type: ignore[union-attr]
    assert starts["images"].get_vocab() == fresh  # type: ignore[union-attr]


def test_clips_with_another_number_of_frames_raise_and_images_do_not() -> None:
    training_set, frames = small_set(2)
    frames.frames["short-00-0"] = solid_frames(0, 1)  # the first clip of all
    check_frame_count(training_set, frames, SIZES.num_frames)
    with pytest.raises(ValueError, match=r"wrong number of frames per clip: 2; expected 8"):
        check_frame_count(training_set, frames, 8)


def fill(workspace: Workspace, training_set: TrainingSet, frames: MemoryFrames) -> None:
    """The tables that a training set is read from; the text of clips is their transcript."""
    rows = [
        {
            "sample_id": name,
            "product_id": product,
            "domain": domain,
            "split": "train",
            "text": training_set.texts[name],
        }
        for product, domains in training_set.products.items()
        for domain, names in domains.items()
        for name in names
    ]
    workspace.table(SAMPLES).upsert(rows)
    store(workspace, frames)


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """Four products; four shorts and four lives have a transcript."""
    fill(workspace, *small_set(4))
    return workspace


def test_clips_without_any_summary_stop_a_training_before_any_work(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "train_on_ray", None)
    settings = small_job(small_set(4)[0], text="keybert", validation_share=0.0).train
    message = r"train.text is keybert, but no summaries of method keybert found, but 8 clips have"
    with pytest.raises(ValueError, match=message):
        run_training(filled, SIZES, settings)


def test_partly_summarized_clips_are_reported(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "train_on_ray", lambda *_, **__: {"step": 1.0})
    filled.table(SUMMARIES).upsert(
        [
            {"sample_id": name, "method": "llm", "model": "", "text": None}
            for name in ("short-00-1", "live-00-1", "short-02-1")
        ]
    )
    settings = small_job(small_set(4)[0], validation_share=0.0).train
    (note,) = run_training(filled, SIZES, settings).notes
    assert note.startswith("train: 5 of 8 clips with a transcript have no summary of method llm")
    assert run_training(filled, SIZES, settings).notes == [note]  # also where nothing is left to do
    for text in ("raw", "none"):
        changed = dataclasses.replace(settings, text=text)  # type: ignore[arg-type]
        assert run_training(filled, SIZES, changed).notes == []


def test_training_records_whose_summaries_it_read(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only model is the same training as that model by name; another one is not."""
    monkeypatch.setattr(stage, "train_on_ray", lambda *_, **__: {"step": 1.0})
    clips = [f"{domain}-0{product}-1" for domain in ("short", "live") for product in range(4)]
    filled.table(SUMMARIES).append(
        [{"sample_id": name, "method": "llm", "model": "qwen", "text": "brush"} for name in clips]
    )
    settings = small_job(small_set(4)[0], validation_share=0.0).train
    assert run_training(filled, SIZES, settings).done == 4
    assert summary_model(filled.fetch("models/ampere")) == "qwen"
    by_name = dataclasses.replace(settings, summary_model="qwen")
    assert run_training(filled, SIZES, by_name).skipped == 4
    filled.table(SUMMARIES).append(
        [{"sample_id": name, "method": "llm", "model": "other", "text": "comb"} for name in clips]
    )
    with pytest.raises(ValueError, match="several models found for method llm: other, qwen"):
        run_training(filled, SIZES, settings)
    assert run_training(filled, SIZES, by_name).skipped == 4
    other = dataclasses.replace(settings, summary_model="other")
    assert run_training(filled, SIZES, other).done == 4


def test_frames_that_are_smaller_than_the_input_are_reported(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "train_on_ray", lambda *_, **__: {"step": 1.0})
    rows = filled.table(FRAMES).read().to_pylist()
    filled.table(FRAMES).upsert([row | {"width": 15, "height": 31} for row in rows])
    settings = small_job(small_set(4)[0], validation_share=0.0, text="none").train
    (note,) = run_training(filled, SIZES, settings).notes
    assert note.startswith("train: ampere reads frames of 32 pixels, but those of 24 of 24 samples")
    text_only = dataclasses.replace(SIZES, use_vision=False)
    settings = dataclasses.replace(settings, text="raw")
    assert run_training(filled, text_only, settings).notes == []


def test_catalog_without_transcripts_needs_no_summaries(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "train_on_ray", lambda *_, **__: {"step": 1.0})
    training_set, frames = small_set(4)
    titles = {name: text if "page" in name else None for name, text in training_set.texts.items()}
    fill(workspace, dataclasses.replace(training_set, texts=titles), frames)
    settings = small_job(training_set, validation_share=0.0).train
    assert run_training(workspace, SIZES, settings).notes == []


def test_smaller_shares_of_the_data_are_parts_of_larger_ones(workspace: Workspace) -> None:
    training_set, frames = small_set(200)
    fill(workspace, training_set, frames)

    def chosen(data_share: float, validation_share: float = 0.2) -> TrainingSet:
        settings = TrainSettings(data_share=data_share, validation_share=validation_share)
        return read_training_set(workspace, frames.frames, settings)

    everything, tenth, fifth = chosen(1.0), chosen(0.1), chosen(0.2)
    assert 0 < len(tenth.products) < len(fifth.products) < len(everything.products)
    assert tenth.products.items() <= fifth.products.items() <= everything.products.items()
    assert len(tenth.products) == pytest.approx(0.1 * len(everything.products), abs=8)
    assert tenth.validation == fifth.validation == everything.validation
    assert 30 < len(everything.validation) < 50
    # Texts of the samples that are used, and no others.
    used = {name for part in (tenth.products, tenth.validation) for ids in part.values()
            for names in ids.values() for name in names}  # fmt: skip
    assert tenth.texts.keys() == used
    # The paper's way: no product is held out.
    assert chosen(1.0, 0.0).products == training_set.products
    assert chosen(0.1, 0.0).validation == {}


def test_untrained_model_needs_no_labels_and_one_cpu_worker(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_set, frames = small_set(2)
    fill(workspace, training_set, frames)
    unlabeled = workspace.table(SAMPLES).read().to_pylist()
    workspace.table(SAMPLES).upsert([row | {"product_id": None} for row in unlabeled])
    started = []

    def train_on_ray(inputs: TrainInputs, *_: object, **__: object) -> dict[str, float]:
        started.append(inputs.job)
        return {"step": 0}

    monkeypatch.setattr(stage, "train_on_ray", train_on_ray)
    settings = small_job(training_set, epochs=0, workers=4, gpus=1.0, text="none").train
    assert run_training(workspace, SIZES, settings).succeeded
    (job,) = started
    assert (job.train.workers, job.train.gpus) == (1, 0) and job.training_set.products == {}


@pytest.mark.parametrize("name", ["k600.pth", "no-such-folder"])
def test_missing_frame_tower_weights_stop_a_training_before_any_work(
    filled: Workspace, tmp_path: Path, name: str
) -> None:
    sizes = dataclasses.replace(SIZES, vision_weights=str(tmp_path / name))
    with pytest.raises(OSError, match=name):
        run_training(filled, sizes, small_job(small_set(4)[0], text="none").train)
    assert filled.names("runs") == []
