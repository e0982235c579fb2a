"""Speech engines: vLLM's prompts and answers by model class, faster-whisper, checks."""

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.text.speech_engines import checks
from ampere.text.speech_engines.checks import check_engine, missing_engine
from ampere.text.speech_engines.vllm_speech import check_model, engine_arguments
from ampere.text.speech_engines.whisper import FasterWhisper
from tests.helpers.speech_models import (
    write_faster_whisper,
    write_qwen_asr,
    write_torchvision,
    write_whisper,
)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def faster(tmp_path_factory: pytest.TempPathFactory, whisper: Path) -> Path:
    return write_faster_whisper(tmp_path_factory.mktemp("faster") / "tiny", whisper)


@pytest.fixture(scope="module")
def torchvision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_torchvision(tmp_path_factory.mktemp("stub"))


def python(torchvision: Path, *arguments: str) -> str:
    """The last line of a Python process that finds the empty torchvision."""
    path = os.pathsep.join([str(torchvision), *filter(None, sys.path), str(Path.cwd())])
    env = os.environ | {"PYTHONPATH": path, "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory, torchvision: Path) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    code = (
        "import sys; from pathlib import Path; from tests.helpers.speech_models import "
        f"{write_qwen_asr.__name__} as write; print(write(Path(sys.argv[1])))"
    )
    python(torchvision, "-c", code, str(folder))
    return folder


@pytest.mark.nightly
def test_prompts_and_answers_are_those_of_each_models_class(
    torchvision: Path, whisper: Path, qwen: Path
) -> None:
    results: list[dict[str, Any]] = [
        json.loads(python(torchvision, "-m", "tests.helpers.speech_prompts", str(folder)))
        for folder in (whisper, qwen)
    ]
    assert results[0] == {
        "max_piece_s": 30.0,
        "detects_first": True,
        "takes_names": False,
        "plain": "<|startoftranscript|><|zh|><|transcribe|><|0.00|>",
        "named": "<|startoftranscript|><|zh|><|transcribe|><|0.00|>",
        "detection": "<|startoftranscript|>",
        "languages": ["de", "en", "ja", "zh"],
        "read": {
            "text": "hi you",  # the rest lies behind the end of the piece
            "language": "en",
            "segments": [
                {"start_s": 0.0, "end_s": 0.5, "text": "hi"},
                {"start_s": 0.8, "end_s": 0.98, "text": "you"},
            ],
        },
    }
    turn = "<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"
    answer = "<|im_start|>assistant\n"
    heard = {"text": "你好", "language": "zh", "segments": []}
    assert results[1] == {
        "max_piece_s": 30.0,
        "detects_first": False,
        "takes_names": True,
        "plain": f"{turn}{answer}language Chinese<asr_text>",
        "named": "<|im_start|>system\n红色马克杯, 无线耳机<|im_end|>\n"
        f"{turn}{answer}language Chinese<asr_text>",
        "undetected": f"{turn}{answer}",
        "read": heard,
        "with_language": heard,
    }


@pytest.mark.nightly
def test_real_vllm_runs_both_models(torchvision: Path, whisper: Path, qwen: Path) -> None:
    heard = [
        json.loads(python(torchvision, "-m", "tests.helpers.speech_prompts", str(folder), "--hear"))
        for folder in (whisper, qwen)
    ]
    first, second = heard[0]["heard"]
    assert len(first["text"]) == len(second["text"]) == 6 and first["language"] in ("en", "zh")
    assert len(heard[1]["heard"]) == 2


def test_faster_whisper_hears_by_its_own_format(
    faster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcriber = FasterWhisper(TranscribeSettings(model=str(faster)))
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
    asked = []
    transcribe = transcriber.model.transcribe

    def spy(piece: Any, **options: Any) -> Any:
        asked.append((options["language"], options["hotwords"]))
        return transcribe(piece, **options)

    monkeypatch.setattr(transcriber.model, "transcribe", spy)
    first, second = transcriber.transcribe([noise, noise[:SAMPLE_RATE]], "en", "red mug, blue mug")
    transcriber.transcribe([noise])
    assert asked == [("en", "red mug, blue mug")] * 2 + [(None, None)]
    assert first.language == "en" and first.text.isascii() and first.text
    assert all(segment.end_s <= 2.0 for segment in first.segments)
    assert all(segment.end_s <= 1.0 for segment in second.segments)
    with pytest.raises(ValueError, match=r"has 31\.0 s; the model takes at most 30 s"):
        transcriber.transcribe([np.zeros(31 * SAMPLE_RATE, np.float32)])


def test_engine_of_a_cpu_is_small_and_that_of_a_gpu_takes_its_memory() -> None:
    settings = TranscribeSettings(engine="vllm", model="m")
    on_cpu = engine_arguments(settings)
    assert on_cpu["dtype"] == "float32" and on_cpu["enforce_eager"]
    assert on_cpu["max_num_seqs"] == 8 and on_cpu["kv_cache_memory_bytes"] == 2**30
    on_gpu = engine_arguments(dataclasses.replace(settings, gpus=0.5, max_num_seqs=9))
    assert on_gpu["gpu_memory_utilization"] == 0.45 and on_gpu["max_num_seqs"] == 9
    assert "kv_cache_memory_bytes" not in on_gpu and not on_gpu["enforce_eager"]


def test_missing_engine_or_model_is_said_with_what_to_do(
    faster: Path, whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert missing_engine(TranscribeSettings(model=str(faster))) is None
    assert missing_engine(TranscribeSettings(engine="vllm", model=str(whisper))) is None
    assert "`ampere transcribe` downloads it" in (missing_engine(TranscribeSettings()) or "")
    elsewhere = TranscribeSettings(engine="vllm", model="Qwen/Qwen3-ASR-0.6B")
    assert "Qwen/Qwen3-ASR-0.6B is not on this machine" in (missing_engine(elsewhere) or "")
    wrong = TranscribeSettings(model=str(whisper))  # of the other engine
    assert "expected a folder with model.bin" in (missing_engine(wrong) or "")
    with pytest.raises(FileNotFoundError, match="expected a folder with model.bin"):
        check_engine(wrong)
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed\. Run `uv pip install faster-whisper`"):
        check_engine(TranscribeSettings())


def test_what_is_known_of_a_model_is_checked_before_any_work(
    faster: Path, whisper: Path, tmp_path: Path
) -> None:
    for wrong, message in (
        ({"language": "xx"}, "language is 'xx', which Whisper does not know"),
        ({"piece_s": 40.0}, r"piece_s is 40 seconds; .* takes at most 30"),
        ({"piece_s": 40.0, "engine": "vllm", "model": str(whisper)}, "takes at most 30"),
        ({"model": "gigantic"}, "model is 'gigantic'; expected a folder, a hub name, or one of ti"),
        ({"model": str(tmp_path)}, "model.bin in it is no Whisper model"),
    ):
        (tmp_path / "model.bin").write_bytes(b"\x06\x00\x00\x00\x0e\x00TransformerSpec\x00")
        with pytest.raises(ValueError, match=message):
            check_engine(TranscribeSettings(**{"model": str(faster)} | wrong))
    check_engine(TranscribeSettings(model=str(faster), language="yue", piece_s=30.0))
    # What only the engine knows.
    check_engine(TranscribeSettings(engine="vllm", model="Qwen/Qwen3-ASR-0.6B", piece_s=40.0))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text('{"chunk_length": 20}')
    with pytest.raises(ValueError, match="takes at most 20"):
        check_engine(TranscribeSettings(engine="vllm", model=str(tmp_path)))


@pytest.mark.slow  # vLLM looks at a model in a new process, which imports it
def test_model_without_speech_is_refused_before_an_engine_loads_it(whisper: Path) -> None:
    settings = TranscribeSettings(engine="vllm", model=str(whisper), language="zh")
    check_model(settings)
    with pytest.raises(ValueError, match=r"'xx', which Whisper\w+ of vLLM does not know; .*zh"):
        check_model(replace(settings, language="xx"))
    # A hub name: only the engine knows.
    check_model(replace(settings, model="Qwen/Qwen3-ASR-0.6B", language="xx"))
    words_only = str(files("ampere.text") / "small_lm")
    with pytest.raises(ValueError, match=r"small_lm; LlamaForCausalLM of vLLM does not transcribe"):
        check_model(replace(settings, model=words_only))
