"""Transcription models of vLLM: prompts formed, and answers read, as each model's class does it.

vLLM's classes with `SupportsTranscription` know their prompts: Whisper, Qwen3-ASR and others. Some
need packages that are not installed here (docs/guides/transcripts.md).
"""

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.text.speech_engines.base import check_lengths
from ampere.text.transcript import PieceTranscript, Segment, timed_transcript

if TYPE_CHECKING:
    from vllm.config import ModelConfig

FIRST_TIME = "<|0.00|>"  # Whisper's first token for a time; one more for each step after it
TIME_STEP_S = 0.02
LANGUAGE_MARK = "<asr_text>"  # Qwen3-ASR writes "language Chinese<asr_text>" before the text
MIN_BATCHED_TOKENS = 2048  # a piece of Whisper's has 1,500
CPU_SEQUENCES, GPU_SEQUENCES = 8, 128

# Asks an engine: a prompt as `SpeechPrompts` forms it, and changes of its sampling parameters, to
# the tokens that it generated.
Ask = Callable[[dict[str, Any], dict[str, Any]], Awaitable[Sequence[int]]]


def engine_arguments(settings: TranscribeSettings) -> dict[str, Any]:
    """Arguments of a vLLM engine, without its model."""
    on_cpu = settings.gpus == 0
    arguments: dict[str, Any] = {
        "dtype": "float32" if on_cpu and settings.dtype == "auto" else settings.dtype,
        "max_model_len": -1,  # as long as its memory allows, up to the model's limit
        "max_num_seqs": settings.max_num_seqs or (CPU_SEQUENCES if on_cpu else GPU_SEQUENCES),
        "limit_mm_per_prompt": {"audio": 1},
        "enforce_eager": on_cpu,  # compiling pays on GPUs only
        "trust_remote_code": settings.trust_remote_code,
    }
    if on_cpu:
        arguments |= {
            "distributed_executor_backend": "uni",
            "max_num_batched_tokens": MIN_BATCHED_TOKENS,
        }
    if settings.kv_cache_gb is not None or on_cpu:
        arguments["kv_cache_memory_bytes"] = int((settings.kv_cache_gb or 1.0) * 2**30)
    elif settings.gpus < 1:  # vLLM leaves a tenth of a whole GPU free
        arguments["gpu_memory_utilization"] = 0.9 * settings.gpus
    return arguments


def sampling_params(settings: TranscribeSettings) -> dict[str, Any]:
    """Sampling parameters: the same audio gives the same text."""
    return {"temperature": 0.0, "max_tokens": settings.max_tokens, "detokenize": False}


def check_model(settings: TranscribeSettings) -> None:
    """Check a model in a folder before engines load it; that of a hub name, they check themselves.

    Raises:
        ValueError: it does not transcribe, or does not know the language.
    """
    path = Path(settings.model).expanduser() / "config.json"
    names = json.loads(path.read_bytes()).get("architectures") if path.is_file() else None
    from vllm import ModelRegistry

    known = {
        name: ModelRegistry.models[name] for name in names or () if name in ModelRegistry.models
    }
    for name, model in known.items():
        if not model.inspect_model_cls().supports_transcription:
            raise no_speech_model(settings.model, name)
        if settings.language:
            check_language(model.load_model_cls(), settings.language)


def check_language(model_class: Any, code: str) -> None:
    """Raise ValueError if a transcription model does not know a language; empty: it detects it."""
    try:
        model_class.validate_language(code or None)
    except ValueError as error:
        known = ", ".join(model_class.supported_languages)
        raise ValueError(
            f"transcribe.language is {code!r}, which {model_class.__name__} of vLLM does not "
            f"know; expected one of {known}"
        ) from error


def no_speech_model(source: str, model_class: str) -> ValueError:
    """The error of a model that does not transcribe."""
    return ValueError(
        f"transcribe.model is {source}; {model_class} of vLLM does not transcribe. Use a speech "
        "model, such as Qwen/Qwen3-ASR-0.6B"
    )


class SpeechPrompts:
    """Forms the prompts of a transcription model, and reads its answers.

    Args:
        model_config: vLLM's, of the engine.

    Raises:
        ValueError: the model does not transcribe, or takes audio of another sample rate.
    """

    def __init__(self, model_config: "ModelConfig") -> None:
        from vllm.model_executor.model_loader import get_model_cls
        from vllm.model_executor.models.interfaces import supports_transcription
        from vllm.tokenizers import cached_tokenizer_from_config

        self.model_config, self.model_class = model_config, get_model_cls(model_config)
        if not supports_transcription(self.model_class):
            raise no_speech_model(model_config.model, self.model_class.__name__)
        self.speech_config = self.model_class.get_speech_to_text_config(model_config, "transcribe")
        if self.speech_config.sample_rate != SAMPLE_RATE:
            raise ValueError(
                f"transcribe.model {model_config.model} takes audio of "
                f"{self.speech_config.sample_rate:g} Hz; expected {SAMPLE_RATE}"
            )
        self.tokenizer = cached_tokenizer_from_config(model_config)

    def check(self, settings: TranscribeSettings) -> None:
        """Raise ValueError if the model does not take the names or the language of the settings."""
        if settings.names_by and not self.takes_names:
            raise ValueError(
                f"transcribe.names_by is {settings.names_by!r}, but vLLM gives no names to "
                f"{settings.model}. Use Qwen3-ASR or faster-whisper, or leave it empty"
            )
        check_language(self.model_class, settings.language)

    @property
    def max_piece_s(self) -> float:
        """Maximum length of a piece of audio, in seconds."""
        limit = self.speech_config.max_audio_clip_s
        return float("inf") if limit is None else float(limit)

    @property
    def detects_first(self) -> bool:
        """Whether the language must be asked for before the text."""
        return self.model_class.supports_explicit_language_detection

    @cached_property
    def takes_names(self) -> bool:
        """Whether names change the prompt.

        Whisper's would: vLLM 0.32 writes them behind `<|prev|>`, which is not a token of Whisper.
        """
        silence = np.zeros(SAMPLE_RATE, np.float32)
        language = next(iter(self.model_class.supported_languages))
        formed = [self.form(silence, language, names) for names in ("", "ampere")]
        texts = [{k: v for k, v in row.items() if k != "multimodal_data"} for row in formed]
        return not self.detects_first and texts[0] != texts[1]

    def form(
        self, audio: NDArray[np.float32], language: str = "", names: str = ""
    ) -> dict[str, Any]:
        """The prompt of a piece of audio.

        Args:
            audio: float32 [n].
            language: ISO 639-1 code; empty: the model detects it, unless `detects_first`.
            names: see `Transcriber.transcribe`; ignored unless the model `takes_names`.

        Returns:
            `tokenized_prompt` or `prompt`, and `multimodal_data`.
        """
        from vllm.config.speech_to_text import SpeechToTextParams

        names = "" if self.detects_first else names
        params = SpeechToTextParams(
            audio=audio,
            stt_config=self.speech_config,
            model_config=self.model_config,
            language=language or None,
            hotwords=names or None,
            request_prompt=names,
        )
        return self._row(self.model_class.get_generation_prompt(params))

    def form_detection(self, audio: NDArray[np.float32]) -> tuple[dict[str, Any], list[int]]:
        """The prompt that asks for the language alone, and the tokens that may answer it."""
        prompt = self.model_class.get_language_detection_prompt(audio, self.speech_config)
        tokens = self.model_class.get_language_token_ids(self.tokenizer)
        known = [
            token for token in tokens or () if token not in (None, self.tokenizer.unk_token_id)
        ]
        return self._row(prompt), known

    def language_of(self, tokens: Sequence[int]) -> str:
        """The language that an answer to `form_detection` names."""
        return self.model_class.parse_language_detection_output(list(tokens), self.tokenizer)

    def read(self, tokens: Sequence[int], seconds: float, language: str = "") -> PieceTranscript:
        """What an answer says.

        Args:
            tokens: that the model generated.
            seconds: of the piece.
            language: that the prompt named; empty: none.
        """
        if self.model_class.supports_segment_timestamp:
            return timed_transcript(self._timed(tokens, seconds), seconds, language)
        raw = self._decode(tokens)
        text = self.model_class.post_process_output(raw).strip()
        return PieceTranscript(text=text, language=language or self._named_language(raw))

    async def hear(
        self, ask: Ask, audio: NDArray[np.float32], language: str = "", names: str = ""
    ) -> PieceTranscript:
        """What an engine that works on many pieces at once hears in one of them.

        Args:
            ask: asks the engine.
            audio: float32 [n].
            language: ISO 639-1 code; empty: the model detects it, by a question of its own if it
                `detects_first`.
            names: see `Transcriber.transcribe`.

        Raises:
            ValueError: the piece is too long.
        """
        # Whisper would leave out what is beyond its limit, without a word.
        check_lengths([audio], self.max_piece_s)
        if not language and self.detects_first:
            prompt, known = self.form_detection(audio)
            answer = await ask(prompt, {"max_tokens": 1, "allowed_token_ids": known})
            language = self.language_of(answer)
        tokens = await ask(self.form(audio, language, names), {})
        return self.read(tokens, len(audio) / SAMPLE_RATE, language)

    def _row(self, prompt: Any) -> dict[str, Any]:
        """A prompt of vLLM as columns of `ray.data.llm`, which has none for encoder prompts."""
        decoder = prompt.get("decoder_prompt", prompt)
        data = prompt.get("encoder_prompt", prompt)["multi_modal_data"]
        if (tokens := decoder.get("prompt_token_ids")) is None:
            text = decoder["prompt"].replace("<|notimestamps|>", FIRST_TIME)
            if "encoder_prompt" not in prompt:
                return {"prompt": text, "multimodal_data": data}
            tokens = self.tokenizer.encode(text, add_special_tokens=False)
        return {"tokenized_prompt": list(tokens), "multimodal_data": data}

    @cached_property
    def _first_time(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(FIRST_TIME)

    def _timed(self, tokens: Sequence[int], seconds: float) -> Iterator[Segment]:
        """Segments between Whisper's tokens for times; the prompt began with time 0."""
        words, start = list[int](), 0.0
        for token in tokens:
            if token < self._first_time:
                words.append(token)
                continue
            time = (token - self._first_time) * TIME_STEP_S
            yield Segment(start, max(start, time), self._decode(words))
            words, start = [], time
        yield Segment(start, max(start, seconds), self._decode(words))

    def _decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()

    def _named_language(self, raw: str) -> str:
        """ISO 639-1 code of the language that Qwen3-ASR names before the text."""
        before, mark, _ = raw.partition(LANGUAGE_MARK)
        name = before.strip().removeprefix("language").strip()
        codes = {name: code for code, name in self.model_class.supported_languages.items()}
        return codes.get(name, "") if mark else ""


class VllmTranscriber:
    """A transcription model of vLLM in this process; see `Transcriber`.

    Args:
        settings: of the stage.

    Raises:
        ValueError: the model does not transcribe.
    """

    def __init__(self, settings: TranscribeSettings) -> None:
        from vllm import LLM

        self.llm = LLM(model=settings.model, **engine_arguments(settings))
        self.prompts = SpeechPrompts(self.llm.llm_engine.model_config)
        self.sampling = sampling_params(settings)
        self.max_piece_s = self.prompts.max_piece_s

    def transcribe(
        self, pieces: Sequence[NDArray[np.float32]], language: str = "", names: str = ""
    ) -> list[PieceTranscript]:
        """See `Transcriber.transcribe`."""
        check_lengths(pieces, self.max_piece_s)
        languages = [language] * len(pieces)
        if not language and self.prompts.detects_first:
            asked = [self.prompts.form_detection(piece) for piece in pieces]
            sampling = self.sampling | {"max_tokens": 1, "allowed_token_ids": asked[0][1]}
            answers = self._generate([row for row, _ in asked], sampling)
            languages = [self.prompts.language_of(tokens) for tokens in answers]
        rows = [
            self.prompts.form(piece, of_piece, names)
            for piece, of_piece in zip(pieces, languages, strict=True)
        ]
        return [
            self.prompts.read(tokens, len(piece) / SAMPLE_RATE, of_piece)
            for tokens, piece, of_piece in zip(
                self._generate(rows, self.sampling), pieces, languages, strict=True
            )
        ]

    def _generate(self, rows: list[dict[str, Any]], sampling: dict[str, Any]) -> list[list[int]]:
        from vllm import SamplingParams

        prompts = [vllm_prompt(row) for row in rows]
        outputs = self.llm.generate(prompts, SamplingParams(**sampling), use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]


def vllm_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """A prompt of `SpeechPrompts` under the names of vLLM itself."""
    names = {"tokenized_prompt": "prompt_token_ids", "multimodal_data": "multi_modal_data"}
    return {names.get(key, key): value for key, value in row.items()}
