"""`ampere ablate`: the paper's tables over any workspace, a training for each row and seed.

Every row is a model of the workspace like any other, so what is done is not done again, and a row that was stopped goes
on from its checkpoint.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ampere.config import Settings
from ampere.models.embedder import embedding_name
from ampere.pipeline.cluster import connect
from ampere.pipeline.embed import embed_stage, model_folder
from ampere.pipeline.evaluate import test_vectors, without_nan
from ampere.pipeline.report import Report
from ampere.pipeline.runner import run_stage
from ampere.pipeline.train import run_training
from ampere.records import SUMMARIES
from ampere.retrieval.evaluation import evaluate_model, judge, mr1_interval
from ampere.retrieval.metrics import TASKS
from ampere.systems import SYSTEMS, TABLES, with_system
from ampere.workspace import Workspace


@dataclass(frozen=True)
class Row:
    """A system's result.

    Attributes:
        results: of each seed, as `evaluate_model` gives them.
        interval: of the mean mR1, in percent.
        reason: why there are no results.
    """

    system: str
    results: tuple[dict[str, Any], ...] = ()
    interval: tuple[float, float] = (float("nan"), float("nan"))
    reason: str | None = None

    def mean(self, task: str | None = None) -> float:
        """Mean over the seeds of a task's R@1, or of mR1."""
        found = [result["tasks"][task]["R1"] if task else result["mR1"] for result in self.results]
        return float(np.mean(found)) if found else float("nan")


def run_ablation(workspace: Workspace, settings: Settings) -> Report:
    """Train, embed and judge the systems of the chosen tables; writes reports/ablation.md and reports/ablation.json.

    A system whose text the workspace lacks, or whose training fails, is a row with its reason.

    Raises:
        FileNotFoundError: there are no frames yet.
    """
    start = time.monotonic()
    chosen = settings.ablate
    systems = list(dict.fromkeys(system for table in chosen.tables for system in TABLES[table]))
    reasons = missing_texts(workspace, settings, systems)
    runs = [seeded(settings, system, seed) for system in systems if system not in reasons for seed in chosen.seeds]
    connect()
    with ThreadPoolExecutor(max_workers=chosen.parallel) as pool:
        trained = list(pool.map(lambda run: train(workspace, run), runs))
    failed = {run.train.name: reason for run, reason in zip(runs, trained, strict=True) if reason}
    rows = {}
    for system in systems:
        names = [seeded(settings, system, seed).train.name for seed in chosen.seeds]
        reason = reasons.get(system) or next((failed[name] for name in names if name in failed), None)
        rows[system] = Row(system, reason=reason) if reason else result(workspace, settings, system)
    workspace.write_report("ablation.json", to_json(rows, settings))
    where = workspace.write_report("ablation.md", to_markdown(rows, settings))
    left_out = [f"ablate: {row.system} has no result: {row.reason}" for row in rows.values() if row.reason]
    notes = [to_markdown(rows, settings), *left_out]
    return Report("ablate", where, done=len(runs) - len(failed), seconds=time.monotonic() - start, notes=notes,
                  unit="trainings")  # fmt: skip


def missing_texts(workspace: Workspace, settings: Settings, systems: Sequence[str]) -> dict[str, str]:
    """System -> why it cannot be trained: the method whose text it reads has made nothing yet."""
    methods = set(workspace.table(SUMMARIES).read(["method"])["method"].to_pylist()) | {"raw", "none"}
    texts = {system: with_system(settings, system).train.text for system in systems}
    return {
        system: f"no summaries of method {text}; run `ampere summarize --summarize.method {text}`"
        for system, text in texts.items()
        if text not in methods
    }


def seeded(settings: Settings, system: str, seed: int) -> Settings:
    """The settings of one training."""
    changed = with_system(settings, system)
    weights = {"ampere": "", "cn-clip": settings.ablate.cn_clip, "mllm": settings.ablate.mllm}
    return dataclasses.replace(
        changed,
        model=dataclasses.replace(changed.model, weights=weights[changed.model.network]),
        train=dataclasses.replace(changed.train, name=f"{system}-{seed}", seed=seed),
    )


def train(workspace: Workspace, run: Settings) -> str | None:
    """Train one row, unless it is trained; returns why it failed: OSError is of weights that could not be had."""
    try:
        print(run_training(workspace, run.model, run.train), flush=True)
    except (FloatingPointError, OSError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def result(workspace: Workspace, settings: Settings, system: str) -> Row:
    """Embed what is not embedded yet, and evaluate."""
    runs, results = [], []
    for seed in settings.ablate.seeds:
        name = f"{system}-{seed}"
        print(run_stage(embed_stage(workspace, dataclasses.replace(settings.embed, model=name)), workspace), flush=True)
        folder = model_folder(workspace, name)
        runs.append(judge(test_vectors(workspace, folder)))
        results.append(evaluate_model(embedding_name(folder), runs[-1]))
    return Row(system, tuple(results), mr1_interval(runs))


def to_json(rows: dict[str, Row], settings: Settings) -> str:
    """All results, with each row's settings."""
    found = {
        system: {
            "about": SYSTEMS[system].about,
            "mR1": row.mean(),
            "interval": list(row.interval),
            "tasks": {task: row.mean(task) for task in TASKS},
            "runs": list(row.results),
            "reason": row.reason,
            "paper_on_ROPE": {table: TABLES[table][system] for table in TABLES if system in TABLES[table]},
        }
        for system, row in rows.items()
    }
    report = {"settings": dataclasses.asdict(settings), "systems": found}
    return json.dumps(without_nan(report), indent=2, ensure_ascii=False)


def to_markdown(rows: dict[str, Row], settings: Settings) -> str:
    """The tables, ours beside the paper's own figures, which are of other data."""
    seeds = f"{len(settings.ablate.seeds)} seed" + "s" * (len(settings.ablate.seeds) > 1)
    lines = ["# The paper's tables on this catalogue", "",
             f"R@1 in percent, {seeds}; in brackets the interval of mR1 in 95 of 100 test sets of as many products. "
             "The last column is the paper's mR1 on ROPE, another and much larger catalogue.", ""]  # fmt: skip
    chance = next((row.results[0]["chance_mR1"] for row in rows.values() if row.results), float("nan"))
    for table in settings.ablate.tables:
        lines += [f"## Table {table}", "", f"| system | what it is | {' | '.join(TASKS)} | mR1 | paper, on ROPE |"]
        lines += ["|---|---|" + "---|" * (len(TASKS) + 2)]
        for system, paper in TABLES[table].items():
            lines.append(f"| {system} | {SYSTEMS[system].about} | {cells(rows[system])} | {paper} |")
        lines += [f"| (chance) | | {' | ' * (len(TASKS) - 1)} | {chance:.1f} | |", ""]
    return "\n".join(lines)


def cells(row: Row) -> str:
    if row.reason:
        return " | ".join([""] * (len(TASKS) - 1) + ["no result", row.reason])
    low, high = row.interval
    return " | ".join([*(f"{row.mean(task):.1f}" for task in TASKS), f"{row.mean():.1f} ({low:.1f} to {high:.1f})"])
