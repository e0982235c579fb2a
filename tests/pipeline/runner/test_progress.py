from ampere.pipeline.runner.progress import Progress
from ampere.pipeline.runner.report import Report


def test_first_results_are_noted_once() -> None:
    report = Report("decode", "frames")
    with Progress("decode", 10, "row", "starting") as progress:
        progress.update(3, report)
        first = report.first_seconds
        progress.update(4, report)
    assert report.first_seconds == first > 0
