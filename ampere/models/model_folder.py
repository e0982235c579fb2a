"""What the files of a saved model say about it, read without loading the model or torch.

A model folder holds config.json, model.safetensors, settings.json and the tokenizer's files.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ampere.config.model import View
from ampere.config.summarize import TextSource

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "settings.json"  # beside the weights: the settings that the model was trained with
ARCHITECTURE = "architecture"


def architecture(folder: Path | str) -> str | None:
    """The architecture named in a folder's config.json; None if it names none."""
    return _read_json(folder, CONFIG_FILE).get(ARCHITECTURE)


def load_config(folder: Path | str) -> dict[str, Any]:
    """The fields of a folder's config.json without the architecture."""
    fields = _read_json(folder, CONFIG_FILE)
    return {name: value for name, value in fields.items() if name != ARCHITECTURE}


def text_source(folder: Path | str) -> TextSource:
    """What the model in a folder reads as text."""
    return _read_json(folder, SETTINGS_FILE)["train"]["text"]


def summary_model(folder: Path | str) -> str:
    """The model whose summaries the network in a folder was trained on; "": no or any model."""
    return _read_json(folder, SETTINGS_FILE)["train"].get("summary_model", "")


def frame_size(folder: Path | str) -> int:
    """Height and width, in pixels, of the frames that a folder's network reads."""
    fields = load_config(folder)
    if "clip" in fields:
        from transformers import ChineseCLIPConfig

        return ChineseCLIPConfig(**fields["clip"]).vision_config.image_size
    return fields.get("sizes", fields)["image_size"]


def frame_view(folder: Path | str) -> View:
    """What of a frame a folder's network reads."""
    fields = load_config(folder)
    return fields.get("sizes", fields).get("view", "center")


def reads_frames(folder: Path | str) -> bool:
    """Whether the vectors of a folder's network depend on frames."""
    return load_config(folder).get("sizes", {}).get("use_vision", True)


def frozen_tower(folder: Path | str) -> str:
    """Name of the frozen vision tower in a folder, whose features may be stored; "" if none is."""
    return load_config(folder).get("frozen_tower", "")


def stored_tower_name(tower: str, *, bf16: bool) -> str:
    """Name of a frozen tower in the `features` table: other dtypes give other features."""
    return f"{tower}-bf16" if tower and bf16 else tower


def embedding_name(folder: Path) -> str:
    """The model's name in the `embeddings` table: `ampere@1f2e3d4c5b6a`, with `content_hash`."""
    return f"{folder.name}@{content_hash(folder)}"


def content_hash(folder: Path | str) -> str:
    """First 12 hex digits of the SHA-256 of a folder's weights, config and tokenizer.

    Embeddings carry it in their model's name: the same digits mean that the same text and frames
    give the same vector. A folder without tokenizer is hashed without it.

    Raises:
        FileNotFoundError: weights or config are missing.
    """
    digest = hashlib.sha256()
    for name in (WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE):
        path = Path(folder) / name
        if name == TOKENIZER_FILE and not path.exists():
            continue
        with path.open("rb") as file:
            digest.update(f"{name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def model_identity(source: str) -> str:
    """Identify a third-party model: its hub name, or its path's name with a content checksum."""
    path = Path(source)
    if not source:  # no model; Path("") would be the current folder
        return source
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix != ".md")
    else:
        return source
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(file.name.encode() + _file_digest(file, status.st_mtime_ns, status.st_size))
    return f"{path.name}@{digest.hexdigest()[:12]}"


@lru_cache(maxsize=1000)
def _file_digest(path: Path, modified: int, size: int) -> bytes:
    """SHA-256 of a file, cached until it changes: weights have many gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _read_json(folder: Path | str, name: str) -> dict[str, Any]:
    return json.loads((Path(folder) / name).read_text(encoding="utf-8"))
