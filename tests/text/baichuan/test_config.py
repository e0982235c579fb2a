"""The config from config.json files as they are published."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from ampere.text.baichuan import register_config
from ampere.text.baichuan.config import BaichuanConfig
from tests.helpers.baichuan import CONFIG

WIDE = {"hidden_size": 5120, "num_attention_heads": 40}


@pytest.mark.parametrize(
    ("config", "alibi", "normalized_head"),
    [
        pytest.param({"max_position_embeddings": 4096}, False, True, id="Baichuan2-7B"),
        pytest.param(WIDE, True, True, id="Baichuan2-13B"),
        pytest.param(WIDE | {"vocab_size": 64000}, True, False, id="Baichuan-13B"),
        pytest.param(
            {"max_position_embeddings": 4096, "vocab_size": 64000}, False, False, id="Baichuan-7B"
        ),
    ],
)
def test_published_configs(
    tmp_path: Path, config: dict[str, int], alibi: bool, normalized_head: bool
) -> None:
    register_config()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": 125696} | config))
    loaded = AutoConfig.from_pretrained(tmp_path)  # runs no code of the folder: it has none
    assert isinstance(loaded, BaichuanConfig)
    assert (loaded.alibi, loaded.normalized_head) == (alibi, normalized_head)
    assert loaded.max_position_embeddings == 4096
    loaded.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert (again.alibi, again.normalized_head) == (alibi, normalized_head)
