import json
import re
from pathlib import Path

import pytest
import torch

from ampere.models.ampere import AMPere, read_config
from ampere.models.model_folder import content_hash
from ampere.models.tokenizer import build_tokenizer, load_tokenizer
from tests.helpers.models import change_weights, random_frames, random_tokens


def test_saved_model_loads_unchanged(model: AMPere, tmp_path: Path) -> None:
    tokenizer = build_tokenizer(["云杉牌电动牙刷"])
    model.train().save_pretrained(tmp_path / "new" / "folder", tokenizer)
    loaded = AMPere.from_pretrained(tmp_path / "new" / "folder")
    inputs = random_frames(2, 4), *random_tokens(2, 7)
    assert not loaded.training and loaded.config == model.config
    assert torch.equal(loaded(*inputs), model.eval()(*inputs))
    assert load_tokenizer(tmp_path / "new" / "folder").get_vocab() == tokenizer.get_vocab()
    kinds = {path.suffix for path in (tmp_path / "new" / "folder").iterdir()}
    assert kinds == {".json", ".safetensors"}  # no pickle


def test_missing_and_unexpected_weights_are_named(model: AMPere, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    change_weights(tmp_path, lambda weights: weights.update(stray=weights.pop("embed.bias")))
    with pytest.raises(ValueError, match="missing embed.bias; unexpected stray"):
        AMPere.from_pretrained(tmp_path)


def test_message_names_only_the_first_of_many_weights(model: AMPere, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    strays = {f"stray{number}": torch.zeros(1) for number in range(10)}
    change_weights(tmp_path, lambda weights: weights.update(strays))
    with pytest.raises(ValueError, match="unexpected stray4; and 5 more$"):
        AMPere.from_pretrained(tmp_path)


def test_misshapen_weight_is_named(model: AMPere, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    change_weights(tmp_path, lambda weights: weights.update({"embed.bias": torch.zeros(5)}))
    with pytest.raises(ValueError, match=re.escape("embed.bias is [5], expected [12]")):
        AMPere.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"depth": 3}, {"sizes": {"widht": 3}}, {"sizes": None}])
def test_config_of_another_class_raises(
    model: AMPere, tmp_path: Path, change: dict[str, object]
) -> None:
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="is not the config of an AMPere model"):
        read_config(tmp_path)


def test_content_hash_covers_weights_config_and_tokenizer(model: AMPere, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "a")
    model.save_pretrained(tmp_path / "b")
    first = content_hash(tmp_path / "a")
    assert re.fullmatch("[0-9a-f]{12}", first) and content_hash(tmp_path / "b") == first
    (tmp_path / "b" / "notes.txt").write_text("not part of the model")
    assert content_hash(tmp_path / "b") == first

    hashes = {first}
    (tmp_path / "b" / "tokenizer.json").write_text("{}")
    hashes.add(content_hash(tmp_path / "b"))
    change_weights(tmp_path / "b", lambda weights: weights["embed.bias"].add_(1))
    hashes.add(content_hash(tmp_path / "b"))
    config = tmp_path / "b" / "config.json"
    config.write_text(config.read_text().replace('"pad_token_id": 0', '"pad_token_id": 1'))
    hashes.add(content_hash(tmp_path / "b"))
    assert len(hashes) == 4


def test_content_hash_of_an_empty_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        content_hash(tmp_path)
