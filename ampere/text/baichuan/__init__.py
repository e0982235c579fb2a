"""Baichuan and Baichuan 2, which neither vLLM (since 0.23) nor transformers knows.

A vLLM plugin: pyproject.toml names `register` in the group `vllm.general_plugins`, and vLLM calls
it in each of its processes. No code that comes with the weights is run.
"""

from importlib.metadata import entry_points

ARCHITECTURES = ("BaichuanForCausalLM", "BaiChuanForCausalLM")  # the second: Baichuan-7B only
MODEL_TYPE = "baichuan"
VOCABULARY_OF_BAICHUAN_1 = 64_000  # tokens; Baichuan 2 has 125,696


def check_plugin() -> None:
    """Check that vLLM will call `register`.

    Raises:
        RuntimeError: the installed package has no such entry point.
    """
    if not any(point.module == __name__ for point in entry_points(group="vllm.general_plugins")):
        raise RuntimeError(
            f"vLLM finds no plugin {__name__}, which it needs for Baichuan models. Install ampere "
            "again, for example with `uv pip install --no-deps --editable .`"
        )


def register() -> None:
    """Register the network with vLLM, and the config and the tokenizer with transformers."""
    from vllm import ModelRegistry

    register_config()
    for name in ARCHITECTURES:
        # By name, so that vLLM imports the network in the engine's process only.
        ModelRegistry.register_model(name, f"{__name__}.network:BaichuanForCausalLM")


def register_config() -> None:
    """Register the config and the tokenizer with transformers, for processes without vLLM."""
    from transformers import AutoConfig, AutoTokenizer

    from ampere.text.baichuan.config import BaichuanConfig
    from ampere.text.baichuan.tokenizer import BaichuanTokenizer

    AutoConfig.register(MODEL_TYPE, BaichuanConfig, exist_ok=True)
    AutoTokenizer.register(BaichuanConfig, fast_tokenizer_class=BaichuanTokenizer, exist_ok=True)
