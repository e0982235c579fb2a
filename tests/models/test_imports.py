"""Processes import no heavy package that they do not need, which saves seconds and memory."""

import subprocess
import sys

import pytest

ENGINES = ("ray", "vllm", "lance", "faiss", "decord", "av")
NETWORKS = ("torch", "transformers", "vllm", "sklearn")


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        # Model and training run on a GPU machine that has only torch and transformers.
        (
            ("models.ampere", "models.embedder", "models.cn_clip", "models.mllm", "training.loop"),
            ENGINES,
        ),
        # Tasks that read frames run no network, and neither do the drivers of these commands.
        (
            (
                "pipeline.embed",
                "pipeline.decode",
                "pipeline.index",
                "pipeline.evaluate",
                "reports.status",
            ),
            NETWORKS,
        ),
        (
            (
                "pipeline.summarize.stage",
                "pipeline.summarize.engine",
                "reports.export",
                "pipeline.prepare.stage",
            ),
            NETWORKS,
        ),
    ],
)
def test_modules_import_no_unneeded_package(
    modules: tuple[str, ...], unwanted: tuple[str, ...]
) -> None:
    check_imports([f"ampere.{module}" for module in modules], unwanted)


def test_gateway_and_searcher_import_no_network() -> None:
    check_imports(["serve.app", "serve.gateway", "serve.searcher"], NETWORKS)


def check_imports(modules: list[str], unwanted: tuple[str, ...]) -> None:
    program = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
    imported = sorted(set(sys.modules) & set({unwanted}))
    assert not imported, f"{{module}} imports {{imported}}"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
