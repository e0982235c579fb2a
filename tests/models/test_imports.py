"""What a process need not load, it does not: seconds and hundreds of megabytes of each."""

import subprocess
import sys

import pytest

ENGINES = ("ray", "vllm", "lance", "faiss", "decord", "av")
NETWORKS = ("torch", "transformers", "vllm", "sklearn")


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        # The model and its training must run on a bare GPU machine that has torch and transformers alone.
        (
            ("models.ampere", "models.embedder", "models.cn_clip", "models.mllm", "training.loop"),
            ENGINES,
        ),
        # Searchers and the gateway run no network, nor do the tasks that read frames; nor do these commands' drivers.
        (
            (
                "pipeline.embed",
                "pipeline.decode",
                "pipeline.index",
                "pipeline.evaluate",
                "pipeline.status",
            ),
            NETWORKS,
        ),
        (
            ("pipeline.summarize", "pipeline.engine", "pipeline.export", "pipeline.prepare"),
            NETWORKS,
        ),
    ],
)
def test_imports_only_what_it_works_with(
    modules: tuple[str, ...], unwanted: tuple[str, ...]
) -> None:
    refuse([f"ampere.{module}" for module in modules], unwanted)


def test_the_deployments_beside_the_embedder_load_no_network() -> None:
    refuse(["serve.app", "serve.gateway", "serve.searcher"], NETWORKS)


def refuse(modules: list[str], unwanted: tuple[str, ...]) -> None:
    program = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
    found = sorted(set(sys.modules) & set({unwanted}))
    assert not found, f"{{module}} imports {{found}}"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
