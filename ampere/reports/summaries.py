"""`reports/summaries.html`: one page on the summaries of a stage, for a person to skim."""

import io
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure

from ampere.pipeline.summarize.stage import SummarizeStage
from ampere.records import FAILURES, SAMPLES, SUMMARIES, TRANSCRIPTS, Domain
from ampere.store.transcripts import SampleTexts, with_transcripts
from ampere.store.workspace import Workspace

PAGE_REPORT = "summaries.html"
SHOWN = 50  # rows
BINS = 40


def write_summary_page(workspace: Workspace, stage: SummarizeStage) -> str:
    """Write the page on the rows of a stage's method and model; returns its path or URI."""
    where = stage.owned_rows()
    method = " by ".join(name for name in stage.key.values() if name)
    columns = ["sample_id", "status", "flags", "language"]
    rows = workspace.table(SUMMARIES).read(columns, where)
    flags = Counter(
        flag.split(":")[0] for of_row in rows["flags"].to_pylist() for flag in of_row or ()
    )
    languages = Counter(rows["language"].to_pylist())
    lengths = text_lengths(workspace, where)
    page = Environment(
        loader=PackageLoader("ampere.reports", "pages"), autoescape=select_autoescape()
    )
    text = page.get_template("summaries.html").render(
        workspace=workspace.uri,
        method=method,
        time=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        statuses=Counter(rows["status"].to_pylist()).most_common(),
        languages=[(name or "none", count) for name, count in languages.most_common()],
        state=stage.plan(workspace).counts(),
        flags=flags.most_common(),
        lengths=[(name, length_statistics(values)) for name, values in lengths.items()],
        plot=length_plot(lengths),
        rows=random_rows(workspace, rows["sample_id"].to_pylist(), where),
        failures=failed_rows(workspace, stage.name),
    )
    return workspace.write_report(PAGE_REPORT, text)


def text_lengths(workspace: Workspace, where: pc.Expression) -> dict[str, np.ndarray]:
    """Lengths in characters of the original texts by domain, and of the summaries.

    Returns:
        Name for people -> int64 [N], the N texts that are not null; names without texts are left
        out.
    """
    parts: dict[str, list[np.ndarray]] = {original(domain): [] for domain in Domain}
    for batch in SampleTexts(workspace).batches(["domain"]):
        with_text = batch.filter(pc.is_valid(batch["text"]))
        for domain in Domain:
            texts = with_text.filter(pc.equal(with_text["domain"], str(domain)))["text"]
            texts = texts.combine_chunks()
            parts[original(domain)].append(pc.utf8_length(texts).to_numpy(zero_copy_only=False))
    summaries = workspace.table(SUMMARIES).read(["text"], where & pc.field("text").is_valid())
    parts["short and live, summary"] = [
        pc.utf8_length(summaries["text"].combine_chunks()).to_numpy(zero_copy_only=False)
    ]
    joined = {name: np.concatenate([*arrays, np.empty(0, int)]) for name, arrays in parts.items()}
    return {name: lengths for name, lengths in joined.items() if lengths.size}


def original(domain: Domain) -> str:
    """How the page names the texts of a domain that the catalog came with."""
    return f"{domain}, {'title' if domain == Domain.PAGE else 'transcript'}"


def length_statistics(lengths: np.ndarray) -> list[str]:
    """Number of texts, and mean, median, 95th percentile and maximum of their lengths."""
    statistics = (lengths.mean(), *np.percentile(lengths, [50, 95]), lengths.max())
    return [f"{lengths.size:,}", *(f"{value:,.0f}" for value in statistics)]


def length_plot(lengths: dict[str, np.ndarray]) -> str:
    """Histograms of the lengths over one logarithmic axis, as SVG."""
    figure = Figure(figsize=(8, 1.3 * max(1, len(lengths))), layout="constrained")
    longest = max((int(values.max()) for values in lengths.values()), default=1)
    edges = np.geomspace(1, longest + 1, BINS)
    axes = figure.subplots(max(1, len(lengths)), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, values) in zip(axes, lengths.items(), strict=False):
        axis.hist(values, edges, color="#3b6ea5")
        axis.set_xscale("log")
        axis.set_yticks([])
        axis.set_title(name, fontsize=9, loc="left")
        axis.spines[["top", "left", "right"]].set_visible(False)
    figure.supxlabel("characters", fontsize=9)
    with io.StringIO() as file:
        figure.savefig(file, format="svg")
        return file.getvalue()[file.getvalue().index("<svg") :]


def random_rows(workspace: Workspace, ids: list[str], where: pc.Expression) -> list[dict[str, Any]]:
    """Rows drawn at random, with their transcripts; the same rows while the table is the same."""
    chosen = random.Random(0).sample(sorted(ids), min(SHOWN, len(ids)))
    condition = pc.field("sample_id").isin(pa.array(chosen, pa.string()))
    summaries = workspace.table(SUMMARIES).read(where=where & condition).to_pylist()
    samples = workspace.table(SAMPLES).read(["sample_id", "domain", "text"], condition)
    samples = with_transcripts(samples, workspace.table(TRANSCRIPTS).dataset())
    sample_of = {row["sample_id"]: row for row in samples.to_pylist()}
    rows = [
        row | {"sample": sample_of.get(row["sample_id"], {"domain": "?", "text": None})}
        for row in summaries
    ]
    return sorted(rows, key=lambda row: chosen.index(row["sample_id"]))


def failed_rows(workspace: Workspace, stage: str) -> list[dict[str, Any]]:
    """The failed rows of the stage by error, each error with its count and one example."""
    rows: pa.Table = workspace.table(FAILURES).read(
        ["error_type", "sample_id", "message"], pc.field("stage") == stage
    )
    errors: dict[str, dict[str, Any]] = {}
    for row in rows.to_pylist():
        error = errors.setdefault(row["error_type"], row | {"count": 0})
        error["count"] += 1
    return sorted(errors.values(), key=lambda error: -error["count"])
