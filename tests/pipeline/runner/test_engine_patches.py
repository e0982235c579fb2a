"""A request that waits for a dead engine ends its process; test_kill.py has the whole job."""

import subprocess
import sys
from importlib.resources import files

import pytest

pytestmark = [pytest.mark.timeout(180), pytest.mark.e2e, pytest.mark.nightly]
PROGRAM = """
import asyncio, os, signal, sys, uuid
import psutil
from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMEngineStageUDF
from ampere.pipeline.runner.engine_patches import exit_on_dead_engine

settings = {
    "dtype": "float32", "enforce_eager": True, "max_model_len": 256,
    "kv_cache_memory_bytes": 2**26,
}
engine = exit_on_dead_engine(vLLMEngineStageUDF)(
    "data", ["prompt"], 1, 1, sys.argv[1], settings, should_continue_on_error=True
)
children = psutil.Process().children(recursive=True)
[process] = [p for p in children if "EngineCore" in " ".join(p.cmdline())]


async def ask():
    row = {"prompt": "好", "sampling_params": {"max_tokens": 2}, engine.IDX_IN_BATCH_COLUMN: 0}
    request = asyncio.create_task(engine._generate_with_error_handling(row, uuid.uuid4()))
    await asyncio.sleep(0.2)  # the request is sent; the stopped engine does not answer
    process.send_signal(signal.SIGKILL)
    await asyncio.wait({request}, timeout=10)
    print("answered" if request.done() else "hangs", flush=True)
    os._exit(0)


process.send_signal(signal.SIGSTOP)
asyncio.run(ask())
"""


def test_first_request_to_an_engine_that_dies() -> None:
    """Ray's own stage prints "hangs" here; once it does not, the patch can go."""
    model = str(files("ampere.text").joinpath("small_lm"))
    command = [sys.executable, "-c", PROGRAM, model]
    result = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert result.returncode == 1, result.stdout + result.stderr[-3000:]
    assert "Traceback" not in result.stderr and "hangs" not in result.stdout
