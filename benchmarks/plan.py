"""Compare what `ampere plan` predicts for decode and embed with real runs of ten times its rows.

    python benchmarks/plan.py [--sample 120] [--rounds 3]

The catalog is one clip of 720 x 1280 (8 s, a key frame every 2 s) under ten times as many ids as
the calibration has. The model is that of `small+zero-shot`: EfficientNet-Lite0 on four frames of a
clip, one actor. In each round the stages first process the calibration's samples, as the command
does; the prediction is for this machine and all rows; then the stages process all rows. The bar is
on the median over the rounds of the error of the wall time. Bytes are compared too, but for frames:
those of the one clip are compressed to almost nothing.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from bars import check_limits
from decode import prepared, write_video

from ampere.config.cluster_shape import Nodes
from ampere.config.plan import PlanStage
from ampere.config.settings import Settings
from ampere.config.systems import named_settings
from ampere.pipeline.train.untrained import save_untrained
from ampere.records import FRAMES
from ampere.workflows.planning.calibrate import calibrate, measure, table_sizes
from ampere.workflows.planning.run import predict

STAGES: tuple[PlanStage, ...] = ("decode", "embed")
TIMES = 10  # rows of the real run over those of the calibration
BAR = 0.25


def one_round(
    clip: Path, sample: int, settings: Settings, folder: Path
) -> dict[str, tuple[float, float]]:
    """Predicted and real seconds of each stage and bytes of each table."""
    samples = TIMES * sample
    workspace = prepared([clip], samples, folder)
    save_untrained(workspace, settings)
    calibration = calibrate(workspace, settings, STAGES, sample)
    assert not calibration.reasons, calibration.reasons
    here = [Nodes("here", 1, os.cpu_count() or 1)]
    plan = predict(calibration, settings, samples, here, {})
    pairs: dict[str, tuple[float, float]] = {}
    for stage, name in zip(plan.stages, STAGES, strict=True):
        (real,), (short,) = measure(name, workspace, settings, samples), calibration.runs[name]
        assert real.rows == stage.rows == samples
        pairs[name] = (stage.seconds, real.seconds)
        print(
            f"{name}: {short.rows} rows in {short.seconds:.1f} s, {stage.startup_s:.1f} s of it to "
            f"start; {samples} predicted {stage.seconds:.1f} s, real {real.seconds:.1f} s "
            f"({real.rows / real.seconds:.2f} rows/s): {stage.seconds / real.seconds - 1:+.1%}; "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    for name, size in table_sizes(workspace).items():
        if name == FRAMES.name:  # one file keeps the frames of the one clip once
            continue
        predicted = calibration.table_bytes[name] * samples
        print(
            f"{name.split('@')[0]}: predicted {predicted / 1e6:.2f} MB, real {size / 1e6:.2f} MB: "
            f"{predicted / size - 1:+.1%}",
            flush=True,
        )
    return pairs


def main() -> int:
    """Run the benchmark; return 1 if the bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    settings = named_settings("small+zero-shot")
    errors: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / "clip.mp4"
        write_video(clip, 8, 2)
        for number in range(args.rounds):
            print(f"round {number + 1}", flush=True)
            folder = Path(name) / str(number)
            for stage, (predicted, real) in one_round(clip, args.sample, settings, folder).items():
                errors[stage].append(abs(predicted / real - 1))
    return check_limits(
        *(
            (f"median error of {stage}", statistics.median(of_stage), BAR)
            for stage, of_stage in errors.items()
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
