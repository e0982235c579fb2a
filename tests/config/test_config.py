import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ampere.config.checks import worker_range
from ampere.config.decode import DecodeSettings
from ampere.config.embed import EmbedSettings
from ampere.config.index import IndexSettings
from ampere.config.model import ModelSettings
from ampere.config.presets import PRESETS
from ampere.config.settings import Settings, to_json
from ampere.config.summarize import SummarizeSettings
from ampere.config.train import TrainSettings
from ampere.text.language_models import find_model
from ampere.text.prompts import PROMPTS

IMPORT = """
import importlib, json, os, sys
before = dict(os.environ)
for name in sys.argv[1:]:
    importlib.import_module(name)
changed = [name for name, _ in before.items() ^ dict(os.environ).items()]
print(json.dumps({"modules": list(sys.modules), "variables": changed}))
"""


def imported_by(*modules: str) -> set[str]:
    """Top-level modules that a fresh interpreter loads for some modules.

    The imports must not change the environment variables.
    """
    output = subprocess.run(
        [sys.executable, "-c", IMPORT, *modules],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    imported = json.loads(output)
    assert imported["variables"] == []
    return {name.split(".")[0] for name in imported["modules"]}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_loads_and_can_be_saved(name: str) -> None:
    settings = PRESETS[name]()
    assert isinstance(settings, Settings)
    assert find_model(settings.summarize.model).prompt in PROMPTS.values()
    assert settings.model.embedding_dim in (128, 256)
    assert settings.decode.num_frames == settings.model.num_frames
    assert settings.decode.short_side >= settings.model.image_size
    saved = json.loads(to_json(settings))
    assert ModelSettings(**saved["model"]) == settings.model
    assert to_json(TrainSettings(**saved["train"])) == to_json(settings.train)


@pytest.mark.parametrize("name", PRESETS)
def test_widths_are_multiples_of_heads_in_every_preset(name: str) -> None:
    model = PRESETS[name]().model
    assert model.vision_width % model.vision_heads == 0
    assert model.text_width % model.text_heads == 0
    assert model.width % model.heads == 0


def test_rope_preset_matches_the_paper() -> None:
    settings = PRESETS["rope"]()
    assert (settings.model.image_size, settings.decode.num_frames) == (224, 8)
    assert (settings.train.batch_size, settings.train.epochs, settings.train.warmup_epochs) == (
        128,
        70,
        4,
    )
    assert (settings.train.margin, settings.train.scale, settings.train.label_smoothing) == (
        0.4,
        64,
        0.1,
    )


@pytest.mark.parametrize(
    ("kind", "values", "got", "expected"),
    [
        (DecodeSettings, {"num_frames": 0}, "decode.num_frames is 0", "at least 1"),
        (DecodeSettings, {"short_side": 15}, "decode.short_side is 15", "at least 16"),
        (DecodeSettings, {"jpeg_quality": 96}, "decode.jpeg_quality is 96", "1 to 95"),
        (DecodeSettings, {"jpeg_quality": 0}, "decode.jpeg_quality is 0", "1 to 95"),
        (DecodeSettings, {"batch_size": 0}, "decode.batch_size is 0", "at least 1"),
        *(
            (
                SummarizeSettings,
                {"workers": workers},
                f"summarize.workers is {workers!r}",
                "MIN:MAX with 1 <= MIN <= MAX",
            )
            for workers in ("0", "0:2", "3:2", "two", "1:", ":", "1:2:3", "-1", "")
        ),
        (
            SummarizeSettings,
            {"max_tokens": 9, "max_model_len": 9},
            "summarize.max_tokens is 9",
            "max_model_len (9)",
        ),
        (SummarizeSettings, {"max_tokens": 0}, "summarize.max_tokens is 0", "at least 1"),
        (SummarizeSettings, {"piece_tokens": 0}, "summarize.piece_tokens is 0", "at least 1"),
        (SummarizeSettings, {"max_num_seqs": 0}, "summarize.max_num_seqs is 0", "at least 1"),
        (SummarizeSettings, {"gpus": 2}, "summarize.gpus is 2", "tensor_parallel_size"),
        (SummarizeSettings, {"batch_size": 0}, "summarize.batch_size is 0", "at least 1"),
        (ModelSettings, {"image_size": 100}, "model.image_size is 100", "multiple of patch_size"),
        (ModelSettings, {"width": 256}, "model.message_width is 512", "256"),
        (TrainSettings, {"epochs": -1}, "train.epochs is -1", "at least 0"),
        (TrainSettings, {"domains": ("page", "page")}, "train.domains is", "at least two"),
        (TrainSettings, {"text_dropout": 1.0}, "train.text_dropout is 1.0", "below 1"),
        (TrainSettings, {"validation_share": -0.1}, "train.validation_share is -0.1", "at least 0"),
        (TrainSettings, {"sample_rate": 0.0}, "train.sample_rate is 0.0", "above 0"),
        (TrainSettings, {"data_share": 0.0}, "train.data_share is 0.0", "above 0"),
        (
            TrainSettings,
            {"data_share": 0.1, "supervision": "frames", "text": "none"},
            "train.supervision is frames and train.data_share is 0.1",
            "leave out",
        ),
        (TrainSettings, {"log_every": 0}, "train.log_every is 0", "at least 1"),
        (TrainSettings, {"workers": 0}, "train.workers is 0", "at least 1"),
        (TrainSettings, {"min_workers": -1}, "train.min_workers is -1", "at least 0"),
        (
            TrainSettings,
            {"batch_size": 128, "workers": 8, "min_workers": 6},
            "train.min_workers is 6",
            "must divide train.batch_size (128)",
        ),
        (
            TrainSettings,
            {"batch_size": 10, "workers": 4},
            "train.batch_size is 10",
            "multiple of train.workers",
        ),
        (
            TrainSettings,
            {"batch_size": 4, "workers": 4},
            "train.batch_size is 4",
            "at least 2 products",
        ),
        (TrainSettings, {"name": "../up"}, "train.name is '../up'", "letters, digits"),
        (TrainSettings, {"name": ""}, "train.name is ''", "letters, digits"),
        (TrainSettings, {"crop_scale": 0.0}, "train.crop_scale is 0.0", "1"),
        (TrainSettings, {"crop_scale": 1.5}, "train.crop_scale is 1.5", "1"),
        (TrainSettings, {"temperature": 0.0}, "train.temperature is 0.0", "0"),
        (EmbedSettings, {"workers": "3:2"}, "embed.workers is '3:2'", "0 <= MIN <= MAX"),
        (EmbedSettings, {"workers": "0"}, "embed.workers is '0'", "0 <= MIN <= MAX"),
        (EmbedSettings, {"workers": "many"}, "embed.workers is 'many'", "0 <= MIN <= MAX"),
        (EmbedSettings, {"batch_size": 0}, "embed.batch_size is 0", "at least 1"),
        (IndexSettings, {"uri": "http://m:19530"}, "index.uri is http://m:19530", "milvus?"),
        (IndexSettings, {"engine": "milvus"}, "index.uri is ''", "http://HOST:PORT"),
        (IndexSettings, {"engine": "milvus", "uri": "m:19530"}, "index.uri is 'm:1", "http://HOST"),
        *(
            (
                IndexSettings,
                {"engine": "milvus", "uri": "http://m:19530", name: value},
                f"index.{name} is {value}",
                "the engine milvus",
            )
            for name, value in {
                "type": "ivf-pq",
                "shards": 2,
                "max_memory_gb": 1.0,
                "max_latency_ms": 1.0,
                "delta_share": 0.2,
                "gpu": True,
            }.items()
        ),
    ],
)
def test_invalid_setting_error_names_value_and_expectation(
    kind: Callable[..., Any], values: dict[str, Any], got: str, expected: str
) -> None:
    with pytest.raises(ValueError, match="train|decode|summarize|embed|model|index") as raised:
        kind(**values)
    assert got in str(raised.value)
    assert expected in str(raised.value).removeprefix(got)


def test_bounds_are_accepted() -> None:
    DecodeSettings(num_frames=1, short_side=16, jpeg_quality=95, batch_size=1)
    SummarizeSettings(max_tokens=1, max_model_len=2, workers="1:1")
    assert [worker_range("x", text) for text in ("3", "1:4")] == [(3, 3), (1, 4)]
    TrainSettings(epochs=1, batch_size=8, workers=4, name="a-b_2", crop_scale=1.0)
    EmbedSettings(workers="2")
    EmbedSettings(workers="0:8")
    IndexSettings(engine="milvus", uri="https://m.example:19530", type="hnsw", target_recall=1.0)
    assert IndexSettings(engine="milvus", uri="x.db").uri == str(Path("x.db").resolve())


HEAVY = {"torch", "ray", "vllm", "transformers", "faiss", "decord", "av"}


def test_importing_settings_loads_no_library() -> None:
    imported = imported_by(
        "ampere.config.settings", "ampere.config.presets", "ampere.config.systems"
    )
    assert not imported & (HEAVY | {"lance", "numpy", "pyarrow", "tyro"})


def test_importing_the_command_line_loads_no_engine() -> None:
    imported = imported_by(
        "ampere.command_line",
        "ampere.pipeline.prepare.stage",
        "ampere.catalog.rope",
        "ampere.catalog.manifest",
    )
    assert not imported & HEAVY


@pytest.mark.parametrize(
    ("workers", "min_workers", "fewest"), [(16, 8, 8), (16, 0, 16), (1, 8, 1), (2, 2, 2)]
)
def test_training_waits_for_its_fewest_workers(workers: int, min_workers: int, fewest: int) -> None:
    """The preset `rope` has 8; a machine with one GPU sets one worker alone."""
    assert TrainSettings(workers=workers, min_workers=min_workers).fewest_workers == fewest
