"""The model and its training must run on a bare GPU machine that has torch and transformers alone."""

import subprocess
import sys

MODULES = ("models.ampere", "models.embedder", "models.cn_clip", "models.mllm", "training.loop")
ENGINES = ("ray", "vllm", "lance", "faiss", "decord", "av")
PROGRAM = f"""
import importlib, sys
for module in {MODULES}:
    importlib.import_module(f"ampere.{{module}}")
    found = sorted(set(sys.modules) & set({ENGINES}))
    assert not found, f"ampere.{{module}} imports {{found}}"
"""


def test_models_and_training_import_no_engine() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)
