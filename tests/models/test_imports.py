"""The model and its training must run on a bare GPU machine that has torch and transformers alone."""

import subprocess
import sys

import pytest

ENGINES = ("ray", "vllm", "lance", "faiss", "decord", "av")


@pytest.mark.parametrize(
    "module",
    [
        "ampere.models.ampere",
        "ampere.models.embedder",
        "ampere.models.cn_clip",
        "ampere.models.mllm",
        "ampere.training.loop",
    ],
)
def test_imports_no_engine(module: str) -> None:
    code = f"import {module}, sys; print(sorted(set(sys.modules) & {set(ENGINES)!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "[]"
