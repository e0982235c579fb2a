"""`ampere figures`: what a model does on the test products, as PNGs and as one page that needs no other file."""

import base64
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ampere.config.evaluate import FiguresSettings
from ampere.media.images import decode_jpeg, encode_jpeg, model_input
from ampere.models.ampere import AMPere
from ampere.models.attention import cls_attention
from ampere.models.model_folder import embedding_name, text_source
from ampere.models.networks import load_network
from ampere.pipeline.evaluate import test_vectors
from ampere.pipeline.runner.report import Report
from ampere.records import CLIP_DOMAINS, Domain
from ampere.retrieval.evaluation import Results, compare, evaluate_model, judge, same_samples
from ampere.retrieval.metrics import TASKS, Ranking, Vectors, similarities
from ampere.retrieval.pairs import product_distances
from ampere.retrieval.plots import attention_plot, distance_plot, font_with, recall_plot, strip_plot
from ampere.retrieval.tables import format_comparison, format_groups, format_table
from ampere.store.frames import LanceFrames
from ampere.store.models import model_folder
from ampere.store.texts import sample_texts
from ampere.store.workspace import Workspace

SHOWN = 5  # answers
THUMB = 112  # pixels of a picture's shorter side
NO_FONT = (
    "figures: no font of this machine has all letters of the queries' texts, so the top-5 strips are drawn without "
    "them; the page shows them. Install one, such as fonts-noto-cjk, and draw again"
)
Found = dict[Domain, Vectors]


@dataclass(frozen=True)
class Picture:
    """A sample as the page shows it. `right` tells whether it answers the query it stands beside; None for a query."""

    sample_id: str
    jpeg: bytes
    text: str | None
    right: bool | None = None

    @property
    def uri(self) -> str:
        return data_uri(self.jpeg, "jpeg")

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return np.asarray(decode_jpeg(self.jpeg))


@dataclass(frozen=True)
class Line:
    """A query, its best answers, and the place of the first right one, 1 for the first."""

    task: str
    query: Picture
    answers: list[Picture]
    place: int


class Gallery:
    """The test samples of a workspace with their pictures and texts."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.frames = LanceFrames(workspace)
        self.texts = sample_texts(workspace, text_source(folder))

    def check(self, found: Found) -> None:
        """Raise ValueError if a sample lost its frames after it was embedded: a new picture may not be readable."""
        have = set(self.frames.dataset().to_table(columns=["sample_id"])["sample_id"].to_pylist())
        if lost := sorted({name for vectors in found.values() for name in vectors.samples} - have):
            raise ValueError(
                f"{len(lost)} embedded samples have no frames any more, such as {lost[0]}; run `ampere embed` first"
            )

    def picture(self, sample_id: str, right: bool | None = None) -> Picture:
        (jpegs,) = self.frames.take([sample_id])
        image = decode_jpeg(jpegs[len(jpegs) // 2])
        scale = THUMB / min(image.size)
        small = image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
        )
        return Picture(sample_id, encode_jpeg(small, 85), self.texts.get(sample_id), right)

    def line(self, task: str, found: Found, ranking: Ranking, at: int) -> Line:
        """The `at`-th query of a task with an answer, and what it finds."""
        queries, gallery = (found[domain] for domain in TASKS[task])
        row = ranking.rows[at]
        ((_, similarity),) = similarities(queries.vectors[[row]], gallery.vectors)
        best = np.argsort(-similarity, kind="stable")[:SHOWN]
        product = queries.products[row]
        answers = [
            self.picture(gallery.samples[place], bool(gallery.products[place] == product))
            for place in best
        ]
        return Line(task, self.picture(queries.samples[row]), answers, int(ranking.first[at]) + 1)


def draw_figures(workspace: Workspace, settings: FiguresSettings) -> Report:
    """Write reports/figures/*.png and reports/index.html.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a model has no embeddings of test samples with a known product.
    """
    folders = {name: model_folder(workspace, name) for name in settings.models}
    found = {name: test_vectors(workspace, folder) for name, folder in folders.items()}
    judged = {name: judge(vectors) for name, vectors in found.items()}
    rankings = {
        name: {task: result.ranking for task, result in results.items()}
        for name, results in judged.items()
    }
    first = settings.models[0]
    gallery = Gallery(workspace, folders[first])
    gallery.check(found[first])
    lines = {
        task: chosen_lines(gallery, task, found[first], rankings[first][task], settings.queries)
        for task in TASKS
    }
    worst = worst_lines(gallery, found[first], rankings[first], settings.worst)
    plots = {
        "distances": distance_plot(
            {name: product_distances(vectors) for name, vectors in found.items()}
        ),
        "recall": recall_plot(
            {n: {task: r.first for task, r in tasks.items()} for n, tasks in rankings.items()}
        ),
    }
    clips = attended_clips(load_network(folders[first]), gallery, found[first], settings.clips)
    if clips:
        plots["attention"] = attention_plot(clips)
    texts = {task: [line.query.text or "" for line in drawn] for task, drawn in lines.items()}
    font = font_with("".join(text for found in texts.values() for text in found))
    for task, drawn in lines.items():
        if drawn:
            rows = [
                [(picture.pixels, picture.right) for picture in (line.query, *line.answers)]
                for line in drawn
            ]
            plots[f"top5-{task}"] = strip_plot(
                f"{task}: query and its five nearest", rows, texts[task], font
            )
    pngs = {name: png(figure) for name, figure in plots.items()}
    for name, data in pngs.items():
        workspace.write_bytes(f"reports/figures/{name}.png", data)
    results = [
        evaluate_model(embedding_name(folders[name]), result) | {"model": name}
        for name, result in judged.items()
    ]
    page = Environment(
        loader=PackageLoader("ampere.reports", "pages"), autoescape=select_autoescape()
    )
    text = page.get_template("figures.html").render(
        workspace=workspace.uri,
        models=settings.models,
        time=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        table=format_table(results),
        groups=format_groups(results[0]),
        comparisons=comparisons(judged),
        plots={
            name: data_uri(data, "png")
            for name, data in pngs.items()
            if not name.startswith("top5")
        },
        lines=lines,
        worst=worst,
    )
    where = workspace.write_report("index.html", text)
    notes = [] if font else [NO_FONT]
    return Report("figures", where, done=len(pngs), unit="figures", notes=notes)


def chosen_lines(
    gallery: Gallery, task: str, found: Found, ranking: Ranking, count: int
) -> list[Line]:
    """Queries drawn at random, the same ones each time."""
    chosen = np.random.default_rng(0).permutation(len(ranking.rows))[:count]
    return [gallery.line(task, found, ranking, int(at)) for at in sorted(chosen)]


def worst_lines(
    gallery: Gallery, found: Found, rankings: dict[str, Ranking], count: int
) -> list[Line]:
    """The queries of all tasks whose first right answer stands last, as a share of the gallery; failures only."""
    places = [
        (ranking.first[at] / len(found[TASKS[task][1]].products), task, at)
        for task, ranking in rankings.items()
        for at in range(len(ranking.rows))
        if ranking.first[at] > 0
    ]
    worst = sorted(places, key=lambda place: (-place[0], place[1:]))[:count]
    return [gallery.line(task, found, rankings[task], at) for _, task, at in worst]


def attended_clips(
    network: Any, gallery: Gallery, found: Found, count: int
) -> list[tuple[str, NDArray[np.uint8], NDArray[np.float32]]]:
    """Clips of both domains, with what the frame tower attends to; none where there is no such tower."""
    if not isinstance(network, AMPere) or network.video is None:
        return []
    rng, clips = np.random.default_rng(0), []
    names = [rng.permutation(found[domain].samples)[: -(-count // 2)] for domain in CLIP_DOMAINS]
    for name in np.concatenate(names)[:count]:
        (jpegs,) = gallery.frames.take([name])
        pixels = model_input(jpegs, network.image_size)
        attention = cls_attention(network, torch.from_numpy(pixels)[None])[0]
        clips.append((str(name), np.moveaxis(pixels, 1, -1), attention.numpy()))
    return clips


def comparisons(judged: dict[str, Results]) -> list[str]:
    """What the first model has over each other one, or why that is not told."""
    first, *others = judged
    return [
        format_comparison(other, first, compare(judged[other], judged[first]))
        if same_samples(judged[other], judged[first])
        else f"{first} and {other} are not compared: they have embeddings of different samples"
        for other in others
    ]


def png(figure: Figure) -> bytes:
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=130)
        return file.getvalue()


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
