"""Small catalogs for tests."""

import csv
from pathlib import Path

FILES = {
    "product_pages_pair": "1000, 10001\n1001, 10002\n",
    "page_titles": "10001, 苹果, 红色, 500克\n",
    "page_images": "10001, p1.jpg\n10002, http://far/p2.jpg\n",
    "product_videos_pair": "1000, 20001\n",
    "video_asrs": "20001,家人们，来, 看\n",
    "video_frames": "20001, 30, c.jpg\n20001, 0, a.jpg\n20001, 9, b.jpg\n",
    "product_lives_pair": "1001, 30001\n",
    "live_asrs": "30001,\n",
    "live_clips": (
        "30001, 1668122890829, y.jpg\n30001, 1668122889829, x.jpg\n30001, 1668122893079, z.jpg\n"
    ),
}


def write_rope(folder: Path, split: str = "training", **changed: str) -> Path:
    """Write the nine ROPE files of a split, some with changed text; returns the folder."""
    folder.mkdir(exist_ok=True)
    for name, text in (FILES | changed).items():
        (folder / f"{split}_{name}.txt").write_text(text, encoding="utf-8")
    return folder


def manifest_rows(catalog: Path) -> list[dict[str, str]]:
    """Rows of a catalog's manifest, with absolute media paths."""
    with (catalog / "manifest.csv").open(encoding="utf-8") as file:
        return [row | {"media": str(catalog / row["media"])} for row in csv.DictReader(file)]


def write_manifest(path: Path, rows: list[dict[str, str]]) -> None:
    """Write a CSV manifest with the columns of the first row."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
