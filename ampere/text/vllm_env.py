"""Environment of the processes that run vLLM."""

ENGINE_ENV = {"VLLM_LOGGING_LEVEL": "ERROR"}
# With the `uni` executor: the model runs in the engine's process. One more process would take as
# long to start as a thousand summaries.
CPU_ENGINE_ENV = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def engine_env(gpus: float) -> dict[str, str]:
    """Environment of an engine with this many GPUs; 0: on the CPU."""
    return ENGINE_ENV | (CPU_ENGINE_ENV if gpus == 0 else {})
