"""The network under a real vLLM engine, against its definition in plain torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.baichuan import SIZES, TEXTS, reference_logits, write_baichuan

ROOT = Path(__file__).parents[3]


PROMPT_TOKENS = 160  # more than a block of the KV cache, and than the engine reads in one step
COMPLETION_TOKENS = 24


def completions(
    folder: Path, *, dtype: str = "float32", quantization: str = ""
) -> list[tuple[list[int], Tensor]]:
    """The tokens of two prompts and their completions, and the logits after the first token."""
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/tokenizer.model")
    long = processor.encode("".join(TEXTS * 4))[:PROMPT_TOKENS]
    prompts = [processor.encode(TEXTS[3])[:20], long]
    (folder / "prompts.json").write_text(json.dumps(prompts))
    command = [sys.executable, "-m", "tests.helpers.baichuan_engine", str(folder)]
    arguments = [str(COMPLETION_TOKENS), dtype, quantization]
    subprocess.run([*command, *arguments], cwd=ROOT, check=True, capture_output=True, timeout=280)
    tokens = json.loads((folder / "tokens.json").read_text())
    assert [row[: len(prompt)] for row, prompt in zip(tokens, prompts, strict=True)] == prompts
    logits = load_file(folder / "logits.safetensors")
    return [(row, logits[str(number)]) for number, row in enumerate(tokens)]


@pytest.mark.slow
@pytest.mark.nightly  # the normal tier compares answers through `ampere summarize`
@pytest.mark.parametrize("size", ["7B", "13B"])
def test_every_logit_is_that_of_the_reference(tmp_path: Path, size: str) -> None:
    folder = write_baichuan(tmp_path / size, size)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    for tokens, logits in completions(folder):
        expected = reference_logits(config, weights, tokens)[:-1]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
        greedy = expected[-COMPLETION_TOKENS:].argmax(1).tolist()
        assert expected.std() > 0.5 and len(set(greedy)) > 5  # neither flat nor constant
        assert tokens[-COMPLETION_TOKENS:] == greedy


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("size", SIZES)
def test_four_bits_by_bitsandbytes(tmp_path: Path, size: str) -> None:
    """The plugin of bitsandbytes quantizes all layers but the output layer, and computes in bf16.

    The environment for GPUs has it; it also runs on a CPU.
    """
    pytest.importorskip("vllm_bnb_plugin")
    from bitsandbytes import functional

    folder = write_baichuan(tmp_path / size, size)
    config = json.loads((folder / "config.json").read_text())
    exact = load_file(folder / "model.safetensors")
    quantized = dict(exact)
    for name in [name for name in exact if name.endswith(("W_pack.weight", "_proj.weight"))]:
        packed, state = functional.quantize_4bit(exact[name].half(), quant_type="nf4")
        quantized[name] = functional.dequantize_4bit(packed, state).float()
    for tokens, logits in completions(folder, dtype="float16", quantization="bitsandbytes"):
        errors = [
            (logits - reference_logits(config, weights, tokens)[:-1]).abs().mean()
            for weights in (quantized, exact)
        ]
        assert errors[0] < errors[1] / 4, errors
