"""`ampere plan`: what the stages would take on a cluster."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import tyro

from ampere.commands.base import Command
from ampere.config.checks import require
from ampere.config.cluster_shape import parse_prices, parse_shape
from ampere.config.decode import DecodeSettings
from ampere.config.embed import EmbedSettings
from ampere.config.plan import PlanStage
from ampere.config.settings import Settings
from ampere.config.summarize import SummarizeSettings
from ampere.config.transcribe import TranscribeSettings


@dataclass(kw_only=True)
class Plan(Command):
    """Predict time, GPU-hours, money and bytes of the stages on a cluster, from a short run."""

    rows: int
    """Number of samples of the whole catalog."""
    cluster: str
    """Nodes of the cluster: NAME=NODESxCORES or NAME=NODESxCORESxGPUS, separated by commas.
    For example head=1x0,cpu=16x16,gpu=8x8x1. A node with 0 cores runs no stage."""
    prices: tuple[str, ...] = ()
    """Price of a node per hour by its name, such as cpu=0.5 gpu=2, in any currency.
    Without prices no money is reported."""
    sample: int = 400
    """Samples of the run that is measured, in a folder of the workspace that is deleted after."""
    stages: tuple[PlanStage, ...] = ("decode", "embed")
    """Stages to measure, in this order."""
    json: bool = False
    """Print JSON instead of a text."""
    decode: DecodeSettings
    transcribe: TranscribeSettings
    summarize: SummarizeSettings
    embed: EmbedSettings
    settings: tyro.conf.Suppress[Settings]

    name: ClassVar[str] = "plan"

    def run(self) -> int:
        # Here: a required flag has no value yet when the help text is made.
        require(self.rows >= 1, f"--rows is {self.rows}; it must be at least 1")
        require(
            len({*self.stages}) == len(self.stages) >= 1,
            f"--stages is {' '.join(self.stages) or 'empty'}; expected each stage at most once",
        )
        shape = parse_shape(self.cluster)
        prices = parse_prices(self.prices, shape)
        workspace = self.open()
        from ampere.workflows.planning.calibrate import calibrate
        from ampere.workflows.planning.run import predict
        from ampere.workflows.planning.show import format_plan, plan_json

        settings = dataclasses.replace(
            self.settings,
            decode=self.decode,
            transcribe=self.transcribe,
            summarize=self.summarize,
            embed=self.embed,
        )
        calibration = calibrate(workspace, settings, self.stages, self.sample)
        plan = predict(calibration, settings, self.rows, shape, prices)
        print(
            plan_json(self.rows, shape, prices, calibration, plan)
            if self.json
            else format_plan(self.rows, shape, calibration, plan)
        )
        return 0 if plan.stages else 1
