"""From what was measured to the stages on a cluster."""

from collections.abc import Mapping, Sequence

from ampere.config.cluster_shape import Nodes
from ampere.config.plan import PlanStage
from ampere.config.settings import Settings
from ampere.workflows.planning.calibrate import Calibration, worker_needs
from ampere.workflows.planning.predict import ClusterPlan, StagePlan, add_up, predict_stage


def predict(
    calibration: Calibration,
    settings: Settings,
    samples: int,
    shape: Sequence[Nodes],
    prices: Mapping[str, float],
) -> ClusterPlan:
    """The stages that were measured, on a cluster; those without room go to the reasons.

    Args:
        calibration: what was measured.
        settings: of the stages.
        samples: of the whole catalog.
        shape: of the cluster.
        prices: of a node per hour, by type.
    """
    plans: list[StagePlan] = []
    stages: list[PlanStage] = ["decode", "transcribe", "summarize", "embed"]
    for stage in stages:
        if stage not in calibration.costs:
            continue
        cost, needs = calibration.costs[stage], worker_needs(stage, settings)
        try:
            plans.append(predict_stage(stage, cost, needs, samples, shape, prices))
        except ValueError as error:
            calibration.reasons[stage] = str(error)
    return add_up(plans, shape, prices)
