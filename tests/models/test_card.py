import dataclasses
import re

import yaml

from ampere.models.ampere import AMPereConfig
from ampere.models.card import model_card


def with_sizes(config: AMPereConfig, **sizes: object) -> AMPereConfig:
    return dataclasses.replace(config, sizes=dataclasses.replace(config.sizes, **sizes))


def rows_of(card: str) -> dict[str, str]:
    """The table's rows; a bar inside of a cell would give a third part and raise."""
    lines = [line for line in card.splitlines() if re.match(r"\| \w", line)]
    return dict(re.split(r"(?<!\\)\|", line.strip("| ")) for line in lines)


def test_front_matter_is_yaml_that_a_hub_reads(config: AMPereConfig) -> None:
    _, front, body = model_card(config, 5, None).split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["library_name"] == "ampere" and fields["pipeline_tag"] == "feature-extraction"
    assert {"video", "text", "x-clip", "bert"} <= set(fields["tags"])
    assert body.lstrip().startswith("# AMPere")
    without_text = yaml.safe_load(
        model_card(dataclasses.replace(config, use_text=False), 5, {}).split("---\n", 2)[1]
    )
    assert "video" in without_text["tags"] and not {"text", "bert"} & set(without_text["tags"])


def test_card_tells_sizes_origin_and_text(config: AMPereConfig) -> None:
    config = with_sizes(
        config, vision_weights="microsoft/xclip-base-patch16-kinetics-600", text_weights=""
    )
    rows = rows_of(model_card(config, 206_812_345, {"text": "llm-name", "steps": 400}))
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["Parameters"] == "206.8 M (206,812,345)"
    assert (
        rows["Embedding"].startswith("12 numbers of float32")
        and "one last layer" in rows["Embedding"]
    )
    assert rows["Frames"] == "4 of a clip, 1 of a page; 32 x 32 RGB"
    assert "2 layers of width 24, patches of 16" in rows["Frame tower"]
    assert "started from microsoft/xclip-base-patch16-kinetics-600" in rows["Frame tower"]
    assert "from no pretrained weights" in rows["Text tower"]
    assert (
        "product name that a language model" in rows["Text"]
        and "9 tokens of a vocabulary of 60" in rows["Text"]
    )
    assert rows["Fusion"] == "`ours`, 2 layers of width 16"
    assert rows["Steps"] == "400"


def test_parts_that_the_model_lacks_are_told(config: AMPereConfig) -> None:
    cope = with_sizes(dataclasses.replace(config, use_text=False), share_last_layer=False)
    rows = rows_of(model_card(cope, 5, {"text": "none"}))
    assert [rows[f"{name} "].strip() for name in ("Text", "Text tower", "Fusion")] == [
        "none is read",
        "none",
        "none",
    ]
    assert "a last layer per domain" in rows["Embedding "]
    assert "no layers" in model_card(with_sizes(config, fusion="sum"), 5, None)
    blind = model_card(with_sizes(config, use_vision=False), 5, None)
    assert "none are seen" in blind and "x-clip" not in blind


def test_loading_is_two_lines_of_python(config: AMPereConfig) -> None:
    block = model_card(config, 5, None).split("```python\n")[1].split("```")[0]
    assert len(block.splitlines()) == 2
    compile(block, "card", "exec")


def test_values_fit_their_cells(config: AMPereConfig) -> None:
    facts = {"note": "one | two\nthree", "scores": {"mR1": 62.3}, "made_by": "云"}
    rows = rows_of(model_card(config, 5, facts))
    assert rows["Note "].strip() == r"one \| two three"
    assert rows["Scores "].strip() == '{"mR1": 62.3}' and rows["Made by "].strip() == "云"
    assert facts["note"] == "one | two\nthree"


def test_folders_of_the_trainer_are_not_published(config: AMPereConfig) -> None:
    card = model_card(with_sizes(config, vision_weights="/home/someone/k600_16_8.pth"), 5, None)
    assert "started from k600_16_8.pth" in card and "/home" not in card
