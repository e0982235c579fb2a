"""What a saved model's files tell of it; nothing here loads the model, or torch to do so.

A folder of ours holds config.json, model.safetensors, settings.json and the tokenizer's files.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ampere.config.summarize import TextSource

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "settings.json"  # beside the weights: the settings that the model was trained with
ARCHITECTURE = "architecture"


def architecture(folder: Path | str) -> str | None:
    """The name of the class that a folder's config.json is of, if it tells."""
    return _read(folder, CONFIG_FILE).get(ARCHITECTURE)


def load_config(folder: Path | str) -> dict[str, Any]:
    """The fields of a folder's config.json, but for the architecture's name."""
    return {
        name: value for name, value in _read(folder, CONFIG_FILE).items() if name != ARCHITECTURE
    }


def text_source(folder: Path | str) -> TextSource:
    """What the model in a folder reads as text."""
    return _read(folder, SETTINGS_FILE)["train"]["text"]


def frame_size(folder: Path | str) -> int:
    """Height and width of the frames, in pixels, that a folder's network reads."""
    fields = load_config(folder)
    if "clip" in fields:
        from transformers import ChineseCLIPConfig

        return ChineseCLIPConfig(**fields["clip"]).vision_config.image_size
    return fields.get("sizes", fields)["image_size"]


def embedding_name(folder: Path) -> str:
    """How the `embeddings` table names the model in a folder: its name and the checksum of its weights."""
    return f"{folder.name}@{content_hash(folder)}"


def content_hash(folder: Path | str) -> str:
    """First 12 hex digits of the sha256 of a model folder's weights, config and tokenizer (where it has one).

    Embeddings carry it as their model's name: the same digits mean that the same text and frames give the same vector.
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
    """The name of somebody's model: a hub name as it is, a folder's or a file's name with a checksum of its content."""
    path = Path(source)
    if not source:  # of no model, and not the folder that we are in
        return source
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix != ".md")
    else:
        return source
    digest = hashlib.sha256()
    for file in files:
        found = file.stat()
        digest.update(file.name.encode() + _file_digest(file, found.st_mtime_ns, found.st_size))
    return f"{path.name}@{digest.hexdigest()[:12]}"


@lru_cache(maxsize=1000)
def _file_digest(path: Path, modified: int, size: int) -> bytes:
    """Read once as long as the file is the same: weights have many gigabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _read(folder: Path | str, name: str) -> dict[str, Any]:
    return json.loads((Path(folder) / name).read_text(encoding="utf-8"))
