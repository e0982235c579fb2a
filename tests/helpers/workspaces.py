"""Workspaces and manifests for tests."""

import csv
import json
from pathlib import Path

from ampere.models.model_folder import CONFIG_FILE, SETTINGS_FILE, WEIGHTS_FILE
from ampere.store.workspace import Workspace


def embedding_model(workspace: Workspace, name: str = "m") -> Path:
    """A model folder with the files that planning and evaluation read; it cannot be loaded."""
    folder = Path(workspace.uri) / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_text("weights")
    (folder / CONFIG_FILE).write_text(json.dumps({"image_size": 32}))
    (folder / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "raw"}}))
    return folder


HEADER = ["sample_id", "product_id", "domain", "text", "media", "price"]


def manifest(path: Path, *rows: list[str]) -> Path:
    """Write a CSV manifest with some rows; returns its path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


def row(name: str, text: str = "", product: str = "p", domain: str = "page") -> list[str]:
    """A manifest row of a sample whose media file is NAME.jpg."""
    return [name, product, domain, text, f"{name}.jpg", "9"]
