"""Greedy completions of a small Baichuan model, with all logits, by vLLM in an own process.

    python -m tests.helpers.baichuan_engine FOLDER TOKENS DTYPE QUANTIZATION

Reads FOLDER/prompts.json, and writes tokens.json (prompt and TOKENS more for each prompt) and
logits.safetensors (float [tokens - 1, vocabulary] for each prompt: after its first token, to those
before the last).
"""

import json
import os
import sys
from pathlib import Path


def main(folder: str, tokens: str, dtype: str, quantization: str) -> None:
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    import torch
    from safetensors.torch import save_file
    from vllm import LLM, SamplingParams

    engine = LLM(
        folder,
        dtype=dtype,
        quantization=quantization or None,
        enforce_eager=True,
        max_model_len=512,
        max_num_seqs=8,
        max_num_batched_tokens=128,  # less than a prompt, so that prompts are read in parts
        max_logprobs=-1,
        logprobs_mode="raw_logits",
        distributed_executor_backend="uni",
        kv_cache_memory_bytes=2**26,
        disable_log_stats=True,
    )
    greedy = SamplingParams(
        temperature=0.0,
        max_tokens=int(tokens),
        logprobs=-1,
        prompt_logprobs=-1,
        ignore_eos=True,
        detokenize=False,
    )
    prompts = json.loads((Path(folder) / "prompts.json").read_text())
    outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], greedy)
    results, logits = [], {}
    for number, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        (completion,) = output.outputs
        results.append([*prompt, *completion.token_ids])
        steps = [*output.prompt_logprobs[1:], *completion.logprobs]
        logits[str(number)] = torch.tensor(
            [[step[token].logprob for token in range(len(step))] for step in steps]
        )
    (Path(folder) / "tokens.json").write_text(json.dumps(results))
    save_file(logits, Path(folder) / "logits.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
