"""`ampere figures`: results of models on the test products, as PNGs and one standalone page."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ampere.config.evaluate import FiguresSettings
from ampere.media.images import decode_jpeg, encode_jpeg, model_input
from ampere.models.ampere import AMPere
from ampere.models.attention import cls_attention
from ampere.models.model_folder import embedding_name, summary_model, text_source
from ampere.models.networks import load_network
from ampere.models.towers.xclip import XClipTower
from ampere.pipeline.evaluate import test_vectors
from ampere.pipeline.runner.report import Report
from ampere.records import CLIP_DOMAINS, Domain
from ampere.retrieval.evaluation import (
    Results,
    compare,
    evaluate_model,
    evaluate_tasks,
    same_samples,
)
from ampere.retrieval.metrics import TASKS, Ranking, Vectors, similarities
from ampere.retrieval.pairs import product_distances
from ampere.retrieval.plots import attention_plot, distance_plot, font_with, recall_plot, strip_plot
from ampere.retrieval.tables import format_comparison, format_groups, format_table
from ampere.store.frames import LanceFrames
from ampere.store.models import model_folder
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace

TOP = 5  # answers shown per query
THUMB = 112  # shorter side of a shown picture, in pixels
NO_FONT = (
    "figures: no installed font has all characters of the query texts, so the top-5 strips are "
    "drawn without text; the page shows it. Install a font such as fonts-noto-cjk and rerun"
)
TestVectors = Mapping[Domain, Vectors]
Clip = tuple[str, NDArray[np.uint8], NDArray[np.float32]]
"""Sample id, frames [F, H, W, 3], attention [F, R, R]."""


@dataclass(frozen=True)
class Picture:
    """A sample as the page shows it.

    Attributes:
        jpeg: its middle frame, scaled down.
        right: whether it answers the query it is shown with; None for a query.
    """

    sample_id: str
    jpeg: bytes
    text: str | None
    right: bool | None = None

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return data_uri(self.jpeg, "jpeg")

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture as uint8 [H, W, 3]."""
        return np.asarray(decode_jpeg(self.jpeg))


@dataclass(frozen=True)
class Example:
    """A query with its best answers.

    Attributes:
        rank: of the first right answer, 1 for the best.
    """

    task: str
    query: Picture
    answers: list[Picture]
    rank: int


@dataclass(frozen=True, kw_only=True)
class FigureData:
    """Everything the figures and the page show; the model names are in the order of the settings.

    Attributes:
        workspace: its URI.
        vectors: embeddings of the test samples by model name.
        results: of the six tasks by model name.
        summaries: of each model, as `evaluate_model` returns them.
        examples: by task, queries of the first model drawn at random.
        worst: the first model's worst failures over all tasks.
        clips: for the attention maps; empty if the first model has no X-CLIP.
    """

    workspace: str
    vectors: Mapping[str, TestVectors]
    results: dict[str, Results]
    summaries: list[dict]
    examples: dict[str, list[Example]]
    worst: list[Example]
    clips: list[Clip]

    def query_texts(self, task: str) -> list[str]:
        """The texts of a task's example queries; "" where a query has none."""
        return [example.query.text or "" for example in self.examples[task]]


class Gallery:
    """The test samples of a workspace with their pictures and texts, and one model's vectors."""

    def __init__(self, workspace: Workspace, folder: Path, vectors: TestVectors) -> None:
        self.frames = LanceFrames(workspace)
        ids = [name for of_domain in vectors.values() for name in of_domain.samples]
        texts = texts_of(workspace, text_source(folder), ids, summary_model(folder))
        self.texts = dict(zip(ids, texts.to_pylist(), strict=True))
        self.vectors = vectors

    def check(self) -> None:
        """Check that every embedded sample still has frames.

        Raises:
            ValueError: a sample lost its frames after it was embedded (its new media failed to
                decode, for example).
        """
        ids = self.frames.dataset().to_table(columns=["sample_id"])["sample_id"]
        embedded = pa.array(sorted(self.texts), pa.string())
        if missing := embedded.filter(pc.invert(pc.is_in(embedded, value_set=ids))).to_pylist():
            raise ValueError(
                f"{len(missing)} embedded samples no longer have frames, such as {missing[0]}; "
                "run `ampere embed` first"
            )

    def picture(self, sample_id: str, right: bool | None = None) -> Picture:
        """A sample's middle frame as a thumbnail."""
        jpegs = self.frames.find(sample_id)
        image = decode_jpeg(jpegs[len(jpegs) // 2])
        scale = THUMB / min(image.size)
        small = image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
        )
        return Picture(sample_id, encode_jpeg(small, 85), self.texts[sample_id], right)

    def example(self, task: str, ranking: Ranking, at: int) -> Example:
        """The `at`-th ranked query of a task, with its best answers."""
        queries, gallery = (self.vectors[domain] for domain in TASKS[task])
        row = ranking.rows[at]
        ((_, similarity),) = similarities(queries.vectors[[row]], gallery.vectors)
        best = np.argsort(-similarity, kind="stable")[:TOP]
        product = queries.products[row]
        answers = [
            self.picture(gallery.samples[place], bool(gallery.products[place] == product))
            for place in best
        ]
        return Example(
            task, self.picture(queries.samples[row]), answers, int(ranking.first[at]) + 1
        )


def draw_figures(workspace: Workspace, settings: FiguresSettings) -> Report:
    """Write reports/figures/*.png and reports/index.html.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a model has no embeddings of test samples with a known product.
    """
    data = collect(workspace, settings)
    font = font_with("".join(text for task in data.examples for text in data.query_texts(task)))
    plots = {name: png(figure) for name, figure in plot(data, font).items()}
    for name, image in plots.items():
        workspace.write_bytes(f"reports/figures/{name}.png", image)
    where = workspace.write_report("index.html", render(data, plots))
    notes = [] if font else [NO_FONT]
    if not data.clips:
        notes.append(
            f"figures: no attention maps, since {settings.models[0]} has no X-CLIP as vision tower"
        )
    return Report("figures", where, done=len(plots), unit="figures", notes=notes)


def collect(workspace: Workspace, settings: FiguresSettings) -> FigureData:
    """Evaluate the models and read the pictures that the figures show.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a model has no embeddings of test samples with a known product, or an embedded
            sample of the first model has no frames.
    """
    folders = {name: model_folder(workspace, name) for name in settings.models}
    vectors = {name: test_vectors(workspace, folder) for name, folder in folders.items()}
    results = {name: evaluate_tasks(of_model) for name, of_model in vectors.items()}
    first = settings.models[0]
    gallery = Gallery(workspace, folders[first], vectors[first])
    gallery.check()
    rankings = {task: result.ranking for task, result in results[first].items()}
    return FigureData(
        workspace=workspace.uri,
        vectors=vectors,
        results=results,
        summaries=[
            evaluate_model(embedding_name(folders[name]), result) | {"model": name}
            for name, result in results.items()
        ],
        examples={
            task: random_examples(gallery, task, rankings[task], settings.queries) for task in TASKS
        },
        worst=worst_examples(gallery, rankings, settings.worst),
        clips=attention_clips(folders[first], gallery, settings.clips),
    )


def random_examples(gallery: Gallery, task: str, ranking: Ranking, count: int) -> list[Example]:
    """Queries drawn at random, the same ones on each run."""
    chosen = np.random.default_rng(0).permutation(len(ranking.rows))[:count]
    return [gallery.example(task, ranking, int(at)) for at in sorted(chosen)]


def worst_examples(gallery: Gallery, rankings: dict[str, Ranking], count: int) -> list[Example]:
    """The failed queries of all tasks whose first right answer is ranked lowest.

    Ranks are compared as a share of the gallery, since galleries differ in size.
    """
    ranks = [
        (ranking.first[at] / len(gallery.vectors[TASKS[task][1]].products), task, at)
        for task, ranking in rankings.items()
        for at in range(len(ranking.rows))
        if ranking.first[at] > 0
    ]
    worst = sorted(ranks, key=lambda rank: (-rank[0], rank[1:]))[:count]
    return [gallery.example(task, rankings[task], at) for _, task, at in worst]


def attention_clips(folder: Path, gallery: Gallery, count: int) -> list[Clip]:
    """Clips of both clip domains with an X-CLIP's attention; [] for other towers or none."""
    network = load_network(folder)
    if not isinstance(network, AMPere) or network.video is None:
        return []
    if not isinstance(network.video.tower, XClipTower):
        return []
    rng, clips = np.random.default_rng(0), []
    names = [
        rng.permutation(gallery.vectors[domain].samples)[: -(-count // 2)]
        for domain in CLIP_DOMAINS
    ]
    for name in np.concatenate(names)[:count]:
        jpegs = gallery.frames.find(name)
        pixels = model_input(jpegs, network.image_size, network.view)
        attention = cls_attention(network, torch.from_numpy(pixels)[None])[0]
        clips.append((str(name), np.moveaxis(pixels, 1, -1), attention.numpy()))
    return clips


def plot(data: FigureData, font: str | None) -> dict[str, Figure]:
    """The figures by name.

    Args:
        font: file of a font for the query texts; None leaves them out.
    """
    distances = {name: product_distances(vectors) for name, vectors in data.vectors.items()}
    ranks = {
        name: {task: result.ranking.first for task, result in results.items()}
        for name, results in data.results.items()
    }
    plots = {"distances": distance_plot(distances), "recall": recall_plot(ranks)}
    if data.clips:
        plots["attention"] = attention_plot(data.clips)
    for task, examples in data.examples.items():
        if examples:
            title = f"{task}: query and its five nearest"
            plots[f"top5-{task}"] = strip_plot(
                title, [strip(example) for example in examples], data.query_texts(task), font
            )
    return plots


def strip(example: Example) -> list[tuple[NDArray[np.uint8], bool | None]]:
    """The pictures of an example, the query first, each with whether it is right."""
    return [(picture.pixels, picture.right) for picture in (example.query, *example.answers)]


def render(data: FigureData, plots: dict[str, bytes]) -> str:
    """The HTML page.

    Args:
        plots: PNG files by figure name; the page shows the top-5 strips as text and pictures.
    """
    pages = Environment(
        loader=PackageLoader("ampere.reports", "pages"), autoescape=select_autoescape()
    )
    shown = {name: image for name, image in plots.items() if not name.startswith("top5")}
    return pages.get_template("figures.html").render(
        workspace=data.workspace,
        models=list(data.results),
        time=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        table=format_table(data.summaries),
        groups=format_groups(data.summaries[0]),
        comparisons=comparisons(data.results),
        plots={name: data_uri(image, "png") for name, image in shown.items()},
        examples=data.examples,
        worst=data.worst,
    )


def comparisons(results: dict[str, Results]) -> list[str]:
    """The first model's gain over each other model, or why the two are not compared."""
    first, *others = results
    return [
        format_comparison(other, first, compare(results[other], results[first]))
        if same_samples(results[other], results[first])
        else f"{first} and {other} are not compared: their embeddings are of different samples"
        for other in others
    ]


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=130)
        return file.getvalue()


def data_uri(data: bytes, kind: str) -> str:
    """An image file of a kind (`png`, `jpeg`) as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
