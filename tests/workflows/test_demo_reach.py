"""What the models of the whole demo find: the figures that it is built for."""

import json
from pathlib import Path

import pytest

from tests.helpers.demo import DemoRun, run_demo

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1500)]


def test_either_modality_of_the_whole_demo_finds_products(tmp_path: Path) -> None:
    """On 50 test products in groups of five that look alike; the group alone gives about 20."""
    run = DemoRun(tmp_path, run_demo(tmp_path, products=200))
    report = json.loads(run.workspace.read_report("evaluation.json") or "")
    both, alone = report["mR1"], report["alone"]
    raw, pictures = (result["mR1"] for result in report["compared"])
    assert both >= 90 and both > raw and both > pictures
    assert alone["text"]["mR1"] >= 85
    assert alone["frames"]["mR1"] >= pictures - 3
    assert pictures > 16.5  # an untrained frozen encoder, when this was asked for
    assert report["without_text"]["cross_product"] < 50  # 100: a cluster of their own
