import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from torch import nn

from ampere.models.ampere import AMPere, AMPereConfig
from ampere.models.card import CARD_FILE, model_card, write_model_card
from ampere.models.cn_clip import CNCLIP, CNCLIPConfig
from ampere.models.mllm import MLLMConfig, MLLMEmbedder
from tests.helpers.models import llava, tiny_clip_config


def card_text(config: AMPereConfig, facts: dict[str, Any] | None = None) -> str:
    return str(model_card(config, 5, facts))


def with_sizes(config: AMPereConfig, **sizes: object) -> AMPereConfig:
    return dataclasses.replace(config, sizes=dataclasses.replace(config.sizes, **sizes))


def table_rows(card: str) -> dict[str, str]:
    """The table's rows, name to value; an unescaped bar inside a cell raises."""
    lines = [line for line in card.splitlines() if re.match(r"\| \w", line)]
    cells = [re.split(r"(?<!\\)\|", line.strip("| ")) for line in lines]
    return {name.strip(): value.strip() for name, value in cells}


def test_front_matter_is_yaml_for_model_hubs(config: AMPereConfig) -> None:
    _, front, body = card_text(config).split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["library_name"] == "ampere" and fields["pipeline_tag"] == "feature-extraction"
    assert {"video", "text", "x-clip", "bert"} <= set(fields["tags"])
    assert body.lstrip().startswith("# AMPere")
    without_text = card_text(dataclasses.replace(config, use_text=False), {})
    tags = yaml.safe_load(without_text.split("---\n", 2)[1])["tags"]
    assert "video" in tags and not {"text", "bert"} & set(tags)


def test_card_shows_sizes_origin_and_text(config: AMPereConfig) -> None:
    config = with_sizes(
        config, vision_weights="microsoft/xclip-base-patch16-kinetics-600", text_weights=""
    )
    rows = table_rows(str(model_card(config, 206_812_345, {"text": "llm-name", "steps": 400})))
    assert rows["Parameters"] == "206.8 M (206,812,345)"
    assert rows["Embedding"].startswith("12 numbers of float32")
    assert "one last layer" in rows["Embedding"]
    assert rows["Frames"] == "4 of a clip, 1 of a page; 32 x 32 RGB"
    assert "2 layers of width 24, patches of 16" in rows["Frame tower"]
    assert "started from microsoft/xclip-base-patch16-kinetics-600" in rows["Frame tower"]
    assert "from no pretrained weights" in rows["Text tower"]
    assert "product name that a language model" in rows["Text"]
    assert "9 tokens of a vocabulary of 60" in rows["Text"]
    assert rows["Fusion"] == "`ours`, 2 layers of width 16"
    assert rows["Steps"] == "400"


def test_card_shows_which_parts_are_missing(config: AMPereConfig) -> None:
    cope = with_sizes(dataclasses.replace(config, use_text=False), share_last_layer=False)
    rows = table_rows(card_text(cope, {"text": "none"}))
    assert rows["Text"] == "none is read"
    assert rows["Text tower"] == rows["Fusion"] == "none"
    assert "a last layer per domain" in rows["Embedding"]
    assert "no layers" in card_text(with_sizes(config, fusion="sum"))
    text_only = card_text(with_sizes(config, use_vision=False))
    assert table_rows(text_only)["Frames"] == "none are read" and "x-clip" not in text_only


def test_loading_example_is_two_lines_of_python(config: AMPereConfig) -> None:
    block = card_text(config).split("```python\n")[1].split("```")[0]
    assert len(block.splitlines()) == 2
    compile(block, "card", "exec")


def test_facts_are_escaped_for_table_cells(config: AMPereConfig) -> None:
    facts = {"note": "one | two\nthree", "scores": {"mR1": 62.3}, "made_by": "云"}
    rows = table_rows(card_text(config, facts))
    assert rows["Note"] == r"one \| two three"
    assert rows["Scores"] == '{"mR1": 62.3}' and rows["Made by"] == "云"
    assert facts["note"] == "one | two\nthree"


def test_card_hides_local_folders(config: AMPereConfig) -> None:
    card = card_text(with_sizes(config, vision_weights="/home/someone/k600_16_8.pth"))
    assert "started from k600_16_8.pth" in card and "/home" not in card


def test_written_card_of_ampere_counts_its_parameters(model: AMPere, tmp_path: Path) -> None:
    write_model_card(tmp_path, model, {"text": "raw"})
    parameters = sum(weight.numel() for weight in model.parameters())
    rows = table_rows((tmp_path / CARD_FILE).read_text(encoding="utf-8"))
    assert f"({parameters:,})" in rows["Parameters"] and "raw transcript" in rows["Text"]


def test_written_cards_of_comparison_networks(tmp_path: Path) -> None:
    clip = CNCLIP(
        CNCLIPConfig(clip=tiny_clip_config().to_diff_dict(), num_frames=4, combine="mean")
    )
    write_model_card(tmp_path, clip, {"text": "none", "epochs": 3})
    card = ModelCard.load(tmp_path / CARD_FILE)
    assert card.data.library_name == "ampere" and "# CNCLIP as product embeddings" in card.text
    assert table_rows(card.text) == {"Combination": "mean", "Text": "none is read", "Epochs": "3"}

    mllm = MLLMEmbedder(*llava(), MLLMConfig(source="/home/someone/llava"))
    write_model_card(tmp_path, mllm)
    assert table_rows(ModelCard.load(tmp_path / CARD_FILE).text) == {"Language model": "llava"}


def test_card_of_an_unknown_network_raises(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no model card for Linear"):
        write_model_card(tmp_path, nn.Linear(2, 2))  # type: ignore[arg-type]
