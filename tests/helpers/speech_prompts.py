"""Print what `SpeechPrompts` does for the model in a folder, as JSON.

A process of its own, since Qwen3-ASR needs a `torchvision` on PYTHONPATH. With `--hear` the model
transcribes noise, by `VllmTranscriber`.
"""

import json
import os
import sys
from typing import Any

import numpy as np

from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.text.speech_engines.vllm_speech import SpeechPrompts, VllmTranscriber

NAMES = "红色马克杯, 无线耳机"


def main(folder: str, *flags: str) -> None:
    from vllm.engine.arg_utils import EngineArgs

    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    prompts = SpeechPrompts(EngineArgs(model=folder, dtype="float32").create_model_config())
    if "--hear" in flags:
        settings = TranscribeSettings(engine="vllm", model=folder, max_tokens=6)
        names = NAMES if prompts.takes_names else ""
        heard = VllmTranscriber(settings).transcribe(
            [noise, noise[: SAMPLE_RATE // 2]], names=names
        )
        print(json.dumps({"heard": [vars_of(piece) for piece in heard]}))
        return

    def text_of(row: dict[str, Any]) -> str:
        tokens = row["tokenized_prompt"]
        if prompts.detects_first:  # Whisper's `decode` leaves out times
            return "".join(prompts.tokenizer.convert_ids_to_tokens(tokens))
        return prompts.tokenizer.decode(tokens)

    def read(text: str, language: str = "") -> dict[str, Any]:
        tokens = prompts.tokenizer.encode(text, add_special_tokens=False)
        return vars_of(prompts.read(tokens, 1.0, language))

    results: dict[str, Any] = {
        "max_piece_s": prompts.max_piece_s,
        "detects_first": prompts.detects_first,
        "takes_names": prompts.takes_names,
        "plain": text_of(prompts.form(noise, "zh")),
        "named": text_of(prompts.form(noise, "zh", NAMES)),
    }
    if prompts.detects_first:
        asked, known = prompts.form_detection(noise)
        results |= {
            "detection": text_of(asked),
            "languages": sorted(prompts.language_of([token]) for token in known),
            "read": read("hi<|0.50|><|0.80|>you<|0.98|><|5.00|>x", "en"),
        }
    else:
        results |= {
            "undetected": text_of(prompts.form(noise)),
            "read": read("language Chinese<asr_text>你好"),
            "with_language": read("你好", "zh"),
        }
    print(json.dumps(results))


def vars_of(transcript: Any) -> dict[str, Any]:
    return vars(transcript) | {"segments": [vars(segment) for segment in transcript.segments]}


if __name__ == "__main__":
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    main(*sys.argv[1:])
