"""`ampere ablate`: the paper's tables over any workspace, a training for each row and seed.

Every row is a model of the workspace like any other: finished trainings are skipped, and a stopped
training resumes from its checkpoint. A row that fails is listed with its reason while the others go
on. The reports are written again after each row.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from ampere.cluster import connect
from ampere.config.embed import EmbedSettings
from ampere.config.model import ModelSettings
from ampere.config.settings import Settings
from ampere.config.summarize import SummarizeSettings, SummaryMethod
from ampere.config.systems import SYSTEMS, TABLES, check_base, same_systems, with_system
from ampere.config.train import TrainSettings
from ampere.models.model_folder import embedding_name
from ampere.pipeline.embed import EmbedStage
from ampere.pipeline.evaluate import (
    TEST_SAMPLES,
    missing_embeddings_note,
    test_vectors,
    without_nan,
)
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.summarize.stage import SummarizeStage
from ampere.pipeline.train.stage import run_training
from ampere.records import SAMPLES, Split
from ampere.retrieval.evaluation import evaluate_model, evaluate_tasks, mr1_interval
from ampere.retrieval.metrics import TASKS
from ampere.store.frames import LanceFrames
from ampere.store.models import model_folder
from ampere.store.texts import (
    chosen_model,
    count_unsummarized,
    method_of,
    no_summaries_reason,
    summary_models,
)
from ampere.store.workspace import Workspace

NONE = "–"  # in place of a number


@dataclass(frozen=True)
class Row:
    """A system's result.

    Attributes:
        results: of each seed, as `evaluate_model` returns them.
        interval: 95 % interval of the mean mR1, in percent.
        left_out: notes on test samples without an embedding, a line for each seed that has any.
        reason: why there are no results.
        trained: number of models trained for this row by this run.
        skipped: number of its models that were trained before.
    """

    system: str
    results: tuple[dict[str, Any], ...] = ()
    interval: tuple[float, float] = (float("nan"), float("nan"))
    left_out: tuple[str, ...] = ()
    reason: str | None = None
    trained: int = 0
    skipped: int = 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the system is evaluated on."""
        return SYSTEMS[self.system].tasks or tuple(TASKS)

    def mr1(self) -> list[float]:
        """mR1 of each seed; [] for a system that is not evaluated on all tasks."""
        return [result["mR1"] for result in self.results] if len(self.tasks) == len(TASKS) else []

    def mean(self, task: str | None = None) -> float:
        """Mean over the seeds of a task's R@1, or of mR1; NaN without results."""
        values = [result["tasks"][task]["R1"] for result in self.results] if task else self.mr1()
        return float(np.mean(values)) if values else float("nan")

    def spread(self) -> float:
        """Standard deviation of mR1 between the seeds; NaN for fewer than two."""
        return statistics.stdev(self.mr1()) if len(self.mr1()) > 1 else float("nan")


Rows = dict[str, Row]  # by system, in the order of the tables
Train = Callable[[Workspace, ModelSettings, TrainSettings], Report]
Embed = Callable[[Workspace, EmbedSettings], Report]
Summarize = Callable[[Workspace, SummarizeSettings], Report]


def run_ablation(workspace: Workspace, settings: Settings) -> Report:
    """Train, embed and evaluate the systems of the chosen tables.

    Summaries of a method that a system reads and no clip has are made first. Writes
    reports/ablation.md and reports/ablation.json. A system that fails, or whose summaries cannot be
    made, is a row with its reason.

    Raises:
        ValueError: the settings change what the systems are, see `check_base`; or several language
            models have summaries, and train.summary_model names none.
        FileNotFoundError: there are no frames yet.
    """
    check_base(settings)
    chosen_model(workspace, "llm", settings.train.summary_model)
    LanceFrames(workspace)  # raises without frames, as every row would
    connect()
    systems = chosen_systems(settings)
    failed = make_summaries(workspace, settings, systems, summarize_clips)
    rows = make_rows(workspace, settings, failed, train=run_training, embed=embed_test_samples)
    return write_rows(workspace, settings, rows)


def summarize_clips(workspace: Workspace, settings: SummarizeSettings) -> Report:
    """Summarize all clips by a method.

    Raises:
        OSError: the hub or the folder does not have the method's model.
    """
    from transformers import AutoConfig

    stage = SummarizeStage(workspace, settings)  # checks local folders
    if source := {"keybert": settings.encoder, "uie": settings.extractor}.get(settings.method):
        AutoConfig.from_pretrained(source)  # before actors start, which would each find out
    return run_stage(stage, workspace)


def make_summaries(
    workspace: Workspace, settings: Settings, systems: Sequence[str], summarize: Summarize
) -> dict[str, str]:
    """Make the summaries that systems read, of each method of which there are none.

    Those of a method that has some are left as they are: another model than that of
    `summarize.model` may have made them.

    Returns:
        Method -> why it failed.
    """
    failed: dict[str, str] = {}
    methods = {method_of(with_system(settings, system).train.text) for system in systems}
    for method in sorted(methods):
        if method in ("raw", "none") or summary_models(workspace, method):
            continue
        try:
            chosen = dataclasses.replace(settings.summarize, method=cast(SummaryMethod, method))
            print(summarize(workspace, chosen), flush=True)
        except Exception as error:  # other systems read other texts
            failed[method] = reason_of(error)
    return failed


def embed_test_samples(workspace: Workspace, settings: EmbedSettings) -> Report:
    """Embed the test samples that have no embedding from the model's weights yet."""
    stage = EmbedStage(workspace, settings, Split.TEST)
    return run_stage(stage, workspace, prune_orphans=False)


def write_rows(workspace: Workspace, settings: Settings, finished: Iterable[Row]) -> Report:
    """Write the reports after each finished row, and again at the end; returns the job's report."""
    start = time.monotonic()
    rows = {system: Row(system, reason="not made yet") for system in chosen_systems(settings)}
    for row in finished:
        rows[row.system] = row
        write_reports(workspace, rows, settings)
    failed = [row for row in rows.values() if row.reason]
    return Report(
        "ablate",
        write_reports(workspace, rows, settings),
        done=sum(row.trained for row in rows.values()),
        skipped=sum(row.skipped for row in rows.values()),
        seconds=time.monotonic() - start,
        notes=[
            to_markdown(rows, settings),
            *(f"ablate: {row.system} has no result: {row.reason}" for row in failed),
        ],
        refused="" if any(row.results for row in rows.values()) else "no system has a result",
        unit="trainings",
    )


def chosen_systems(settings: Settings) -> list[str]:
    """The systems of the chosen tables, each once."""
    return list(dict.fromkeys(name for table in settings.ablate.tables for name in TABLES[table]))


def make_rows(
    workspace: Workspace,
    settings: Settings,
    failed: Mapping[str, str] = MappingProxyType({}),
    *,
    train: Train,
    embed: Embed,
) -> Iterator[Row]:
    """Yield each chosen system's row when it is finished.

    Args:
        failed: as `make_summaries` returns it.
        train: trains a model of the workspace, unless it is trained; as `run_training`.
        embed: embeds the test samples with a model, as `embed_test_samples`.
    """
    systems = chosen_systems(settings)
    reasons = missing_texts(workspace, settings, systems, failed)
    for system, first in same_systems(settings, systems).items():
        reasons[system] = f"with these settings the same system as {first}"
    for system, reason in reasons.items():
        yield Row(system, reason=reason)
    pending = [system for system in systems if system not in reasons]
    # Train `parallel` systems, then embed them one at a time: embedding uses the whole cluster.
    parallel = settings.ablate.parallel
    for group in (pending[at : at + parallel] for at in range(0, len(pending), parallel)):
        runs = [(system, run) for system in group for run in seeded(settings, system)]
        reports = train_together(workspace, [run for _, run in runs], parallel, train)
        for system in group:
            own = [
                report for (name, _), report in zip(runs, reports, strict=True) if name == system
            ]
            row = finished_row(workspace, settings, system, own, embed)
            trained = [report for report in own if isinstance(report, Report)]
            yield dataclasses.replace(
                row,
                trained=sum(report.done > 0 for report in trained),
                skipped=sum(report.done == 0 for report in trained),
            )


def missing_texts(
    workspace: Workspace,
    settings: Settings,
    systems: Sequence[str],
    failed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """System -> why it cannot be trained: its text source has no summaries.

    Args:
        failed: as `make_summaries` returns it.
    """
    trains = {system: with_system(settings, system).train for system in systems}
    texts = {system: (train.text, train.summary_model) for system, train in trains.items()}
    reasons = {
        (text, model): failed.get(method_of(text))
        or no_summaries_reason(text, *count_unsummarized(workspace, text, model), model)
        for text, model in set(texts.values())
    }
    return {system: reason for system, text in texts.items() if (reason := reasons[text])}


def seeded(settings: Settings, system: str) -> list[Settings]:
    """The settings of a system's trainings, one for each seed; only one if it is not trained."""
    changed = with_system(settings, system)
    weights = {"ampere": "", "cn-clip": settings.ablate.cn_clip, "mllm": settings.ablate.mllm}
    model = dataclasses.replace(changed.model, weights=weights[changed.model.network])
    seeds = settings.ablate.seeds if changed.train.epochs else settings.ablate.seeds[:1]
    trains = [
        dataclasses.replace(changed.train, name=f"{system}-{seed}", seed=seed) for seed in seeds
    ]
    return [dataclasses.replace(changed, model=model, train=train) for train in trains]


def train_together(
    workspace: Workspace, runs: Sequence[Settings], parallel: int, train: Train
) -> list[Report | str]:
    """Train models, `parallel` at a time; returns each one's report, or why it failed."""

    def train_one(run: Settings) -> Report | str:
        try:
            report = train(workspace, run.model, run.train)
        except Exception as error:  # the per-row edge: the other systems are trained all the same
            return reason_of(error)
        print(report, flush=True)
        return report

    pool = ThreadPoolExecutor(max_workers=parallel)
    try:
        return list(pool.map(train_one, runs))
    finally:
        # After a signal, trainings in the other threads end with the process, not hours later.
        pool.shutdown(wait=False, cancel_futures=True)


def finished_row(
    workspace: Workspace,
    settings: Settings,
    system: str,
    reports: Sequence[Report | str],
    embed: Embed,
) -> Row:
    """The row of a system, with its results or the reason why there are none.

    Args:
        reports: of its trainings, or why they failed.
    """
    if failures := [report for report in reports if isinstance(report, str)]:
        return Row(system, reason=failures[-1])
    try:
        return evaluated_row(workspace, settings, system, embed)
    except Exception as error:  # the per-row edge, as in `train_together`
        return Row(system, reason=reason_of(error))


def reason_of(error: Exception) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def evaluated_row(workspace: Workspace, settings: Settings, system: str, embed: Embed) -> Row:
    """Embed the test samples with each of the system's models, and evaluate them."""
    all_results, summaries, left_out = [], [], []
    tested = workspace.table(SAMPLES).count(TEST_SAMPLES)
    for name in (run.train.name for run in seeded(settings, system)):
        print(embed(workspace, dataclasses.replace(settings.embed, model=name)), flush=True)
        folder = model_folder(workspace, name)
        vectors = test_vectors(workspace, folder)
        embedded = sum(len(of_domain.products) for of_domain in vectors.values())
        if embedded < tested:
            left_out.append(missing_embeddings_note(name, tested - embedded, tested))
        results = evaluate_tasks(vectors)
        all_results.append(results)
        summaries.append(evaluate_model(embedding_name(folder), results))
    row = Row(system, tuple(summaries), left_out=tuple(left_out))
    return dataclasses.replace(row, interval=mr1_interval(all_results)) if row.mr1() else row


def write_reports(workspace: Workspace, rows: Rows, settings: Settings) -> str:
    """Write both reports; returns the path or URI of the Markdown one."""
    workspace.write_report("ablation.json", to_json(rows, settings))
    return workspace.write_report("ablation.md", to_markdown(rows, settings))


def to_json(rows: Rows, settings: Settings) -> str:
    """All results as JSON, with the settings of the run."""
    systems = {
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
    report = {"settings": dataclasses.asdict(settings), "systems": systems}
    return json.dumps(without_nan(report), indent=2, ensure_ascii=False)


def to_markdown(rows: Rows, settings: Settings) -> str:
    """The tables as Markdown, our numbers beside the paper's, which are of other data."""
    several = len(settings.ablate.seeds) > 1
    seeds = (
        f"mean of {len(settings.ablate.seeds)} seeds, ± their standard deviation"
        if several
        else "1 seed"
    )
    lines = [
        "# The paper's tables on this catalog",
        "",
        f"R@1 in percent, {seeds}; in brackets the 95 % interval of mR1 over resampled test "
        "products. The last column is the paper's mR1 on ROPE, another and much larger catalog: "
        "table IV is trained on all of it, tables V to XI on a tenth. "
        f"{trained_on(settings.train)}",
        "",
    ]
    chance = next(
        (row.results[0]["chance_mR1"] for row in rows.values() if row.results), float("nan")
    )
    for table in settings.ablate.tables:
        own = table == "missing-text"  # not of the paper
        last = "mR1 of queries without text" if own else "paper, on ROPE"
        lines += [
            f"## Table {table}",
            "",
            f"| system | what it is | {' | '.join(TASKS)} | mR1 | {last} |",
        ]
        lines += ["|---|---|" + "---|" * (len(TASKS) + 2)]
        for system, paper in TABLES[table].items():
            number = NONE if paper is None else paper
            value = without_text(rows[system]) if own else number
            lines.append(
                f"| {system} | {SYSTEMS[system].about} | {cells(rows[system])} | {value} |"
            )
        lines += [f"| (chance) | | {' | ' * (len(TASKS) - 1)} | {chance:.1f} | |", ""]
    lines += [f"- {note}" for row in rows.values() for note in row.left_out]
    return "\n".join(lines)


def trained_on(train: TrainSettings) -> str:
    """How these models are trained where the paper's are trained on all products to the end."""
    held_out = (
        f"{100 * train.validation_share:g} % of the training products are held out, and the "
        "weights that do best on them are kept"
        if train.validation_share
        else "no product is held out, and the last weights are kept"
    )
    share = "all" if train.data_share == 1 else f"{100 * train.data_share:g} %"
    return f"Here {held_out}; {share} of the other products train."


def without_text(row: Row) -> str:
    """mR1 of the queries without text, mean over the seeds, and the number of these queries."""
    groups = [result["groups"].get("text", {}).get("without") for result in row.results]
    groups = [group for group in groups if group]
    if not groups:
        return NONE
    return f"{np.mean([group['mR1'] for group in groups]):.1f} of {groups[0]['queries']}"


def cells(row: Row) -> str:
    """R@1 of each task and mR1, or the reason why there are none, as cells of a table."""
    if row.reason:
        return " | ".join([""] * (len(TASKS) - 1) + ["no result", row.reason.replace("|", "\\|")])
    low, high = row.interval
    spread = f" ± {row.spread():.1f}" if len(row.results) > 1 else ""
    mr1 = f"{row.mean():.1f}{spread} ({low:.1f} to {high:.1f})" if row.mr1() else NONE
    return " | ".join(
        [*(f"{row.mean(task):.1f}" if task in row.tasks else NONE for task in TASKS), mr1]
    )
