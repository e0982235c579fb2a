"""Print what `SpeechPrompts` does for models in folders, as JSON: python -m THIS WHISPER QWEN.

A process of its own, since Qwen3-ASR needs a `torchvision` on PYTHONPATH. With `--transcribe` the
models also transcribe a second of noise, by `VllmTranscriber`.
"""

import json
import os
import sys
from typing import Any

import numpy as np

from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.text.speech_engines.vllm_speech import SpeechPrompts, VllmTranscriber

NAMES = "红色马克杯, 无线耳机"


def main(whisper: str, qwen: str, *flags: str) -> None:
    from vllm.engine.arg_utils import EngineArgs

    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    results: dict[str, Any] = {}
    for name, folder in (("whisper", whisper), ("qwen", qwen)):
        config = EngineArgs(model=folder, dtype="float32").create_model_config()
        prompts = SpeechPrompts(config)

        def text_of(row: dict[str, Any], prompts: SpeechPrompts = prompts) -> str:
            tokens = row["tokenized_prompt"]
            if prompts.detects_first:  # Whisper's `decode` leaves out times
                return "".join(prompts.tokenizer.convert_ids_to_tokens(tokens))
            return prompts.tokenizer.decode(tokens)

        def tokens(text: str, prompts: SpeechPrompts = prompts) -> list[int]:
            return prompts.tokenizer.encode(text, add_special_tokens=False)

        results[name] = {
            "max_piece_s": prompts.max_piece_s,
            "detects_first": prompts.detects_first,
            "takes_names": prompts.takes_names,
            "plain": text_of(prompts.form(noise, "zh")),
            "named": text_of(prompts.form(noise, "zh", NAMES)),
        }
        if name == "whisper":
            asked, known = prompts.form_detection(noise)
            results[name] |= {
                "detection": text_of(asked),
                "languages": sorted(prompts.language_of([token]) for token in known),
                "read": vars_of(
                    prompts.read(tokens(" hi<|0.50|><|0.80|> you<|0.98|><|5.00|> x"), 1.0, "en")
                ),
            }
        else:
            results[name] |= {
                "undetected": text_of(prompts.form(noise)),
                "read": vars_of(prompts.read(tokens("language Chinese<asr_text>你好"), 1.0)),
                "told": vars_of(prompts.read(tokens("你好"), 1.0, "zh")),
            }
        if "--transcribe" in flags:
            settings = TranscribeSettings(engine="vllm", model=folder, max_tokens=6)
            transcriber = VllmTranscriber(settings)
            names = NAMES if prompts.takes_names else ""
            heard = transcriber.transcribe([noise, noise[: SAMPLE_RATE // 2]], names=names)
            results[name]["heard"] = [vars_of(piece) for piece in heard]
    print(json.dumps(results))


def vars_of(transcript: Any) -> dict[str, Any]:
    return vars(transcript) | {"segments": [vars(segment) for segment in transcript.segments]}


if __name__ == "__main__":
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    main(*sys.argv[1:])
