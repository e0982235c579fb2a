"""`ampere ablate`: the paper's tables over any workspace, a training for each row and seed.

Every row is a model of the workspace like any other, so what is done is not done again, and a row that was stopped goes
on from its checkpoint. A row that fails is listed with its reason, and the others go on; after each row the report is
written anew.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ampere.cluster import connect
from ampere.config.settings import Settings
from ampere.config.systems import SYSTEMS, TABLES, check_base, with_system
from ampere.models.model_folder import embedding_name
from ampere.pipeline.embed import embed_stage
from ampere.pipeline.evaluate import TESTED, not_embedded, test_vectors, without_nan
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.train.stage import run_training
from ampere.records import SAMPLES, Split
from ampere.retrieval.evaluation import evaluate_model, judge, mr1_interval
from ampere.retrieval.metrics import TASKS
from ampere.store.frames import LanceFrames
from ampere.store.models import model_folder
from ampere.store.texts import no_summaries, unsummarized
from ampere.store.workspace import Workspace

NONE = "–"  # in place of a figure


@dataclass(frozen=True)
class Row:
    """A system's result.

    Attributes:
        results: of each seed, as `evaluate_model` gives them.
        interval: of the mean mR1, in percent.
        left_out: what is to be said of test samples that a model has no vector of, a line for each seed with any.
        reason: why there are no results.
    """

    system: str
    results: tuple[dict[str, Any], ...] = ()
    interval: tuple[float, float] = (float("nan"), float("nan"))
    left_out: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that the system is judged on."""
        return SYSTEMS[self.system].tasks or tuple(TASKS)

    def mr1(self) -> list[float]:
        """mR1 of each seed; none of a system that is not judged on all tasks."""
        return [result["mR1"] for result in self.results] if len(self.tasks) == len(TASKS) else []

    def mean(self, task: str | None = None) -> float:
        """Mean over the seeds of a task's R@1, or of mR1."""
        found = [result["tasks"][task]["R1"] for result in self.results] if task else self.mr1()
        return float(np.mean(found)) if found else float("nan")

    def spread(self) -> float:
        """Standard deviation of mR1 between the seeds; NaN of fewer than two."""
        return statistics.stdev(self.mr1()) if len(self.mr1()) > 1 else float("nan")


def run_ablation(workspace: Workspace, settings: Settings) -> Report:
    """Train, embed and judge the systems of the chosen tables; writes reports/ablation.md and reports/ablation.json.

    A system whose text the workspace lacks, or that fails in whatever way, is a row with its reason.

    Raises:
        ValueError: the settings change what the systems are; see `check_base`.
        FileNotFoundError: there are no frames yet.
    """
    check_base(settings)
    start = time.monotonic()
    chosen = settings.ablate
    LanceFrames(workspace)  # without frames it raises, as every row would
    systems = list(dict.fromkeys(system for table in chosen.tables for system in TABLES[table]))
    missing = missing_texts(workspace, settings, systems)
    rows = {system: Row(system, reason=missing.get(system, "not made yet")) for system in systems}
    due = [system for system in systems if system not in missing]
    done = skipped = 0
    connect()
    # As many rows at a time as are trained at once: embedding, which takes one model at a time, then has the cluster.
    for group in (due[at : at + chosen.parallel] for at in range(0, len(due), chosen.parallel)):
        runs = [(system, run) for system in group for run in seeded(settings, system)]
        reports = train_together(workspace, [settings for _, settings in runs], chosen.parallel)
        failed = {
            system: found
            for (system, _), found in zip(runs, reports, strict=True)
            if isinstance(found, str)
        }
        trained = [report for report in reports if isinstance(report, Report)]
        done += sum(report.done > 0 for report in trained)
        skipped += sum(report.done == 0 for report in trained)
        for system in group:
            reason = failed.get(system)
            rows[system] = (
                Row(system, reason=reason) if reason else result(workspace, settings, system)
            )
            write_reports(workspace, rows, settings)
    where = write_reports(workspace, rows, settings)
    left_out = [
        f"ablate: {row.system} has no result: {row.reason}" for row in rows.values() if row.reason
    ]
    notes = [to_markdown(rows, settings), *left_out]
    nothing = "" if any(row.results for row in rows.values()) else "no system has a result"
    return Report(
        "ablate", where, done=done, skipped=skipped, seconds=time.monotonic() - start, notes=notes, refused=nothing,
        unit="trainings",
    )  # fmt: skip


def missing_texts(
    workspace: Workspace, settings: Settings, systems: Sequence[str]
) -> dict[str, str]:
    """System -> why it cannot be trained: the method whose text it reads has made nothing yet."""
    texts = {system: with_system(settings, system).train.text for system in systems}
    reasons = {
        text: no_summaries(text, *unsummarized(workspace, text)) for text in set(texts.values())
    }
    return {system: reason for system, text in texts.items() if (reason := reasons[text])}


def seeded(settings: Settings, system: str) -> list[Settings]:
    """The settings of a system's trainings, one for each seed; one in all where nothing is trained."""
    changed = with_system(settings, system)
    weights = {"ampere": "", "cn-clip": settings.ablate.cn_clip, "mllm": settings.ablate.mllm}
    model = dataclasses.replace(changed.model, weights=weights[changed.model.network])
    seeds = settings.ablate.seeds if changed.train.epochs else settings.ablate.seeds[:1]
    trains = [
        dataclasses.replace(changed.train, name=f"{system}-{seed}", seed=seed) for seed in seeds
    ]
    return [dataclasses.replace(changed, model=model, train=train) for train in trains]


def train_together(
    workspace: Workspace, runs: Sequence[Settings], parallel: int
) -> list[Report | str]:
    """Train some rows, `parallel` at once."""
    pool = ThreadPoolExecutor(max_workers=parallel)
    try:
        return list(pool.map(lambda run: train(workspace, run), runs))
    except KeyboardInterrupt:
        import ray

        pool.shutdown(wait=False, cancel_futures=True)
        ray.shutdown()  # or what is trained in other threads would be waited for, for hours
        raise
    finally:
        pool.shutdown(wait=False)


def train(workspace: Workspace, run: Settings) -> Report | str:
    """Train one row, unless it is trained; returns its report, or why it failed."""
    try:
        report = run_training(workspace, run.model, run.train)
    except Exception as error:  # the per-row edge: the other systems are trained all the same
        return reason_of(error)
    print(report, flush=True)
    return report


def result(workspace: Workspace, settings: Settings, system: str) -> Row:
    """The row of a trained system, or of the reason why it could not be embedded or judged."""
    try:
        return judged_row(workspace, settings, system)
    except Exception as error:  # the per-row edge, as in `train`
        return Row(system, reason=reason_of(error))


def reason_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def judged_row(workspace: Workspace, settings: Settings, system: str) -> Row:
    """Embed the test samples that are not embedded yet, and evaluate."""
    runs, results, left_out = [], [], []
    tested = workspace.table(SAMPLES).count(TESTED)
    for name in (run.train.name for run in seeded(settings, system)):
        stage = embed_stage(workspace, dataclasses.replace(settings.embed, model=name), Split.TEST)
        print(run_stage(stage, workspace), flush=True)
        folder = model_folder(workspace, name)
        vectors = test_vectors(workspace, folder)
        if lacking := tested - sum(len(found.products) for found in vectors.values()):
            left_out.append(not_embedded(name, lacking, tested))
        runs.append(judge(vectors))
        results.append(evaluate_model(embedding_name(folder), runs[-1]))
    row = Row(system, tuple(results), left_out=tuple(left_out))
    return dataclasses.replace(row, interval=mr1_interval(runs)) if row.mr1() else row


def write_reports(workspace: Workspace, rows: dict[str, Row], settings: Settings) -> str:
    """Write both reports; returns where the one for people is."""
    workspace.write_report("ablation.json", to_json(rows, settings))
    return workspace.write_report("ablation.md", to_markdown(rows, settings))


def to_json(rows: dict[str, Row], settings: Settings) -> str:
    """All results, with each row's settings."""
    found = {
        system: {
            "about": SYSTEMS[system].about,
            "mR1": row.mean(),
            "interval": list(row.interval),
            "spread": row.spread(),
            "tasks": {task: row.mean(task) for task in row.tasks},
            "runs": list(row.results),
            "left_out": list(row.left_out),
            "reason": row.reason,
            "paper_on_ROPE": {
                table: TABLES[table][system] for table in TABLES if system in TABLES[table]
            },
        }
        for system, row in rows.items()
    }
    report = {"settings": dataclasses.asdict(settings), "systems": found}
    return json.dumps(without_nan(report), indent=2, ensure_ascii=False)


def to_markdown(rows: dict[str, Row], settings: Settings) -> str:
    """The tables, ours beside the paper's own figures, which are of other data."""
    several = len(settings.ablate.seeds) > 1
    seeds = (
        f"mean of {len(settings.ablate.seeds)} seeds, ± their standard deviation"
        if several
        else "1 seed"
    )
    lines = ["# The paper's tables on this catalogue", "",
             f"R@1 in percent, {seeds}; in brackets the interval of mR1 in 95 of 100 test sets of as many products. "
             "The last column is the paper's mR1 on ROPE, another and much larger catalogue; table IV is of all its "
             "training data, tables V to XI are of a tenth.", ""]  # fmt: skip
    chance = next(
        (row.results[0]["chance_mR1"] for row in rows.values() if row.results), float("nan")
    )
    for table in settings.ablate.tables:
        last = "mR1 of queries without text" if table == "missing-text" else "paper, on ROPE"
        lines += [
            f"## Table {table}",
            "",
            f"| system | what it is | {' | '.join(TASKS)} | mR1 | {last} |",
        ]
        lines += ["|---|---|" + "---|" * (len(TASKS) + 2)]
        for system, paper in TABLES[table].items():
            told = (
                without_text(rows[system])
                if table == "missing-text"
                else NONE
                if paper is None
                else paper
            )
            lines.append(f"| {system} | {SYSTEMS[system].about} | {cells(rows[system])} | {told} |")
        lines += [f"| (chance) | | {' | ' * (len(TASKS) - 1)} | {chance:.1f} | |", ""]
    lines += [f"- {told}" for row in rows.values() for told in row.left_out]
    return "\n".join(lines)


def without_text(row: Row) -> str:
    """mR1 of the queries without text, and how many these are; mean over the seeds."""
    found = [result["groups"].get("text", {}).get("without") for result in row.results]
    told = [group for group in found if group]
    if not told:
        return NONE
    return f"{np.mean([group['mR1'] for group in told]):.1f} of {told[0]['queries']}"


def cells(row: Row) -> str:
    """R@1 of each task and mR1, as cells of a table."""
    if row.reason:
        return " | ".join([""] * (len(TASKS) - 1) + ["no result", row.reason.replace("|", "\\|")])
    low, high = row.interval
    spread = f" ± {row.spread():.1f}" if len(row.results) > 1 else ""
    mr1 = f"{row.mean():.1f}{spread} ({low:.1f} to {high:.1f})" if row.mr1() else NONE
    return " | ".join(
        [*(f"{row.mean(task):.1f}" if task in row.tasks else NONE for task in TASKS), mr1]
    )
