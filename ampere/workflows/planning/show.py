"""The plan as a text for people and as JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ampere.config.cluster_shape import Nodes
from ampere.reports.run_page import duration, number
from ampere.reports.text_table import new_table, render_table
from ampere.workflows.planning.calibrate import Calibration
from ampere.workflows.planning.predict import ClusterPlan

SHORT_S = 5.0  # between the first and the last rows: below, the rate is of few batches
DRIVER_ROWS_PER_S = 900  # the slowest that one driver committed: docs/development/benchmarks.md
NEVER = "not predicted: prepare, train, index and evaluate run once, in one process or one training"
ASSUMED = (
    "the cluster's cores and GPUs are as fast as the measured ones",
    "time per row stays as it is with more rows, and falls with the number of workers",
    "the other samples are like the measured ones, and nothing is processed yet",
    "a stage pays the nodes it uses, from its start to its end; nodes without cores are paid all "
    "the time",
    "storage and network are not the limit",
)


def format_plan(
    samples: int, shape: Sequence[Nodes], calibration: Calibration, plan: ClusterPlan
) -> str:
    """Tables of the predicted stages and of the bytes, and what is measured and assumed."""
    nodes = ", ".join(
        f"{n.count} {n.name} of {n.cores} cores" + f" and {n.gpus} GPUs" * bool(n.gpus)
        for n in shape
    )
    lines = [f"plan for {samples:,} samples on {nodes}"]
    if plan.stages:
        lines += ["", stage_table(plan), "", bottleneck(plan)]
    size = sum(calibration.table_bytes.values()) * samples
    tables = [
        f"{name} {shown_bytes(each * samples)}" for name, each in calibration.table_bytes.items()
    ]
    lines += [f"tables: {shown_bytes(size)} ({', '.join(tables)})", ""]
    lines += [f"measured: {line}" for line in measured_lines(calibration)]
    lines += [f"assumed: {line}" for line in ASSUMED]
    lines += [f"not predictable: {name}: {why}" for name, why in calibration.reasons.items()]
    lines += [NEVER, *(f"warning: {line}" for line in warnings(calibration, plan))]
    return "\n".join(lines)


def stage_table(plan: ClusterPlan) -> str:
    """The stages, and their sum."""
    money = any(stage.cost is not None for stage in plan.stages)
    right = ("rows", "workers", "start", "rows/s", "wall time", "GPU-hours")
    table = new_table("stage", right=(*right, *(["cost"] if money else [])))
    for stage in plan.stages:
        table.add_row(
            stage.stage,
            f"{stage.rows:,}",
            f"{stage.workers:,}",
            duration(stage.startup_s),
            f"{stage.rows_per_s:,.1f}",
            duration(stage.seconds),
            f"{stage.gpu_hours:,.1f}",
            *([number(stage.cost)] if money else []),
        )
    total = ("total", "", "", "", "", duration(plan.seconds), f"{plan.gpu_hours:,.1f}")
    table.add_row(*total, *([number(plan.cost)] if money else []))
    return render_table(table)


def bottleneck(plan: ClusterPlan) -> str:
    """The longest stage, its share of the time, and what limits it."""
    stage = next(stage for stage in plan.stages if stage.stage == plan.bottleneck)
    share = stage.seconds / plan.seconds
    return f"bottleneck: {stage.stage}, {share:.0%} of the time, limited by {stage.limit}"


def measured_lines(calibration: Calibration) -> list[str]:
    """The runs of each stage, and what follows from them."""
    return [
        f"{stage}: {run.rows:,} rows in {run.seconds:.1f} s on {run.workers} workers here, the "
        f"first {run.first_rows:,} after {run.first_s:.1f} s"
        for stage, runs in calibration.runs.items()
        for run in runs
    ] + [
        f"{stage}: {cost.startup_s:.1f} s to start and end, {1 / cost.worker_s:,.2f} rows/s per "
        "worker"
        for stage, cost in calibration.costs.items()
    ]


def warnings(calibration: Calibration, plan: ClusterPlan) -> list[str]:
    """What makes a prediction doubtful."""
    lines = [
        f"{stage}: only {run.steady_s:.1f} s passed between the first and the last rows; for a "
        f"prediction to rely on give more than --sample {calibration.samples}"
        for stage in calibration.costs
        for run in calibration.runs[stage]
        if run.steady_s < SHORT_S
    ]
    lines += [
        f"{stage.stage}: {stage.rows_per_s:,.0f} rows/s are more than the {DRIVER_ROWS_PER_S} that "
        "one driver was measured to commit; divide the catalog among several workspaces, or expect "
        "this limit"
        for stage in plan.stages
        if stage.rows_per_s > DRIVER_ROWS_PER_S
    ]
    return lines


def plan_json(
    samples: int,
    shape: Sequence[Nodes],
    prices: Mapping[str, float],
    calibration: Calibration,
    plan: ClusterPlan,
) -> str:
    """All of it as JSON: seconds, bytes, and money in the currency of the prices."""
    tables = {name: round(each * samples) for name, each in calibration.table_bytes.items()}
    content: dict[str, Any] = {
        "samples": samples,
        "cluster": [dataclasses.asdict(nodes) for nodes in shape],
        "prices": dict(prices),
        "predicted": dataclasses.asdict(plan) | {"table_bytes": tables},
        "measured": {
            stage: {
                "runs": [dataclasses.asdict(run) for run in runs],
                "cost": dataclasses.asdict(calibration.costs[stage])
                if stage in calibration.costs
                else None,
            }
            for stage, runs in calibration.runs.items()
        },
        "assumed": ASSUMED,
        "not_predictable": calibration.reasons,
        "warnings": warnings(calibration, plan),
    }
    return json.dumps(content, ensure_ascii=False, indent=2)


def shown_bytes(size: float) -> str:
    """Bytes for people.

    >>> shown_bytes(1234), shown_bytes(56_700_000), shown_bytes(8.9e12)
    ('1.2 kB', '56.7 MB', '8.9 TB')
    """
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
