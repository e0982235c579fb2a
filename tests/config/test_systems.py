"""The paper's systems as presets."""

import dataclasses

import pytest
import torch

from ampere.config.presets import PRESETS
from ampere.config.settings import Settings
from ampere.config.summarize import SummaryMethod, TextSource
from ampere.config.systems import (
    SYSTEMS,
    TABLES,
    check_base,
    named_settings,
    same_systems,
    with_system,
)
from ampere.models.ampere import AMPere, AMPereConfig
from ampere.retrieval.metrics import TASKS


def test_preset_without_system_is_unchanged() -> None:
    for name, preset in PRESETS.items():
        assert named_settings(name) == preset()


def test_system_ampere_is_the_preset() -> None:
    assert named_settings("rope+ampere") == PRESETS["rope"]()


def test_system_names_the_model_in_every_stage() -> None:
    settings = named_settings("demo+cope")
    assert (
        settings.train.name
        == settings.embed.model
        == settings.index.model
        == settings.serve.model
        == "cope"
    )
    assert settings.evaluate.models == ("cope",)
    assert settings.train.epochs == PRESETS["demo"]().train.epochs


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_distinct_and_builds(name: str) -> None:
    settings = named_settings(f"rope+{name}")
    others = [named_settings(f"rope+{other}") for other in SYSTEMS if other != name]
    system = (settings.model, dataclasses.replace(settings.train, name="x"))
    assert all(
        (other.model, dataclasses.replace(other.train, name="x")) != system for other in others
    )
    config = AMPereConfig(
        sizes=settings.model, vocab_size=100, pad_token_id=0, use_text=settings.train.text != "none"
    )
    with torch.device("meta"):
        AMPere(config)


@pytest.mark.parametrize(
    ("name", "words"),
    [("huge", "expected small, demo, rope"), ("demo+cop", "expected a system of ampere, cope")],
)
def test_unknown_presets_and_systems_are_refused(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        named_settings(name)


def table_base(preset: str) -> Settings:
    """A preset with the paper's fusion, which `small` and `demo` do not have."""
    settings = PRESETS[preset]()
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, fusion="ours"))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_of_any_size_are_bases_of_the_tables(preset: str) -> None:
    settings = table_base(preset)
    check_base(settings)
    sized = dataclasses.replace(settings.model, temporal_layers=2)
    check_base(
        dataclasses.replace(
            settings,
            model=sized,
            train=dataclasses.replace(settings.train, epochs=1, batch_size=64, start_from="warm"),
        )
    )


@pytest.mark.parametrize(
    ("part", "changed", "words"),
    [
        (
            "model",
            {"fusion": "sum"},
            r"model.fusion is 'sum'; .* start from 'ours'. Pass --model.fusion ours, and",
        ),
        (
            "model",
            {"share_last_layer": False},
            r"model.share_last_layer is False; .* --model.share-last-layer",
        ),
        (
            "train",
            {"text": "raw"},
            "train.text is 'raw'; .* start from 'llm'. Pass --train.text llm, and",
        ),
        (
            "train",
            {"domains": ("page", "short")},
            r"train.domains is \('page', 'short'\); .* Pass --train.domains page short live",
        ),
    ],
)
def test_base_with_changes_of_a_system_is_refused(
    part: str, changed: dict[str, object], words: str
) -> None:
    settings = table_base("demo")
    changes = {part: dataclasses.replace(getattr(settings, part), **changed)}
    with pytest.raises(ValueError, match=words):
        check_base(dataclasses.replace(settings, **changes))


@pytest.mark.parametrize(
    "name",
    sorted(SYSTEMS.keys() - {"ampere", "empty-text", "dropout", "empty-dropout"}),
)
def test_systems_are_refused_as_bases(name: str) -> None:
    with pytest.raises(ValueError, match=r"give --preset without a \+SYSTEM"):
        check_base(named_settings(f"rope+{name}"))


def test_bases_that_make_systems_the_same_are_noticed() -> None:
    assert same_systems(PRESETS["rope"](), SYSTEMS) == {}
    # The paper's way with missing texts is a base like the others; only its own row repeats it.
    empty = named_settings("rope+empty-text")
    check_base(empty)
    assert same_systems(empty, SYSTEMS) == {"empty-text": "ampere"}
    assert same_systems(empty, [name for name in SYSTEMS if name != "ampere"]) == {}
    assert same_systems(named_settings("rope+dropout"), TABLES["missing-text"]) == {
        "dropout": "ampere",
        "empty-dropout": "empty-text",
    }


def test_table_v_has_every_text_with_and_without_frames() -> None:
    rows = {
        (s.model.use_vision, s.train.text)
        for s in (named_settings(f"demo+{name}") for name in TABLES["V"])
    }
    texts = set(TextSource.__args__) - {"none"}
    assert rows == {(vision, text) for vision in (True, False) for text in texts} | {(True, "none")}
    assert TABLES["V"]["text"] == TABLES["X"]["text"]


def test_rice_is_evaluated_on_l2p_only() -> None:
    assert SYSTEMS["rice"].tasks == ("L2P",) and TABLES["IV"]["rice"] is None
    assert {task for system in SYSTEMS.values() for task in system.tasks} <= set(TASKS)


def test_demo_writes_checkpoints_to_resume_from() -> None:
    train = PRESETS["demo"]().train
    steps = train.epochs * (128 // train.batch_size)  # about that many training products
    assert 0 < 2 * train.checkpoint_every <= steps


def test_every_text_source_is_of_a_system() -> None:
    texts = {system.train["text"] for system in SYSTEMS.values() if "text" in system.train}
    assert texts == set(TextSource.__args__) - {"llm"}
    assert set(SummaryMethod.__args__) < set(TextSource.__args__)


def test_language_model_of_a_base_is_read_by_systems_that_read_summaries() -> None:
    base = table_base("demo")
    base = dataclasses.replace(base, train=dataclasses.replace(base.train, summary_model="qwen"))
    check_base(base)
    chosen = {name: with_system(base, name).train.summary_model for name in TABLES["V"]}
    assert {name for name, model in chosen.items() if model == "qwen"} == {
        "ampere", "llm-name", "llm-features", "text", "text-llm-name", "text-llm-features",
    }  # fmt: skip
