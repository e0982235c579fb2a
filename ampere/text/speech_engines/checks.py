"""Checks of a speech engine and its model before any work."""

import json
from importlib.util import find_spec
from pathlib import Path

from ampere.config.transcribe import TranscribeSettings
from ampere.text.speech_engines.whisper import WINDOW_S, check_language, check_model

INSTALL = "uv pip install faster-whisper"
WEIGHTS = {"faster-whisper": "model.bin", "vllm": "config.json"}


def check_engine(settings: TranscribeSettings) -> None:
    """Check, before any work, that the engine is installed, and what is known of its model.

    Raises:
        ValueError: the package of the engine is not installed; the model is of another kind, or
            does not take pieces of `piece_s` or the language.
        FileNotFoundError: the model is a path, and there is no model of the engine at it.
    """
    if settings.engine == "faster-whisper" and find_spec("faster_whisper") is None:
        raise ValueError(
            "transcribe.engine is faster-whisper, which is not installed. Run "
            f"`{INSTALL}`, or use --transcribe.engine vllm with a GPU"
        )
    _check_folder(settings)
    limit = piece_limit_s(settings)
    if limit is not None and settings.piece_s > limit:
        raise ValueError(
            f"transcribe.piece_s is {settings.piece_s:g} seconds; {settings.model} takes at most "
            f"{limit:g}"
        )
    if settings.engine == "faster-whisper":
        check_model(settings.model)
        check_language(settings.language)


def _check_folder(settings: TranscribeSettings) -> None:
    path = Path(settings.model).expanduser()
    if not path.is_dir() and not settings.model.startswith((".", "/", "~")):
        return
    weights = WEIGHTS[settings.engine]
    if not (path / weights).exists():
        raise FileNotFoundError(
            f"transcribe.model is {settings.model}; expected a folder with {weights}, as "
            f"{settings.engine} takes it, or a hub name"
        )


def piece_limit_s(settings: TranscribeSettings) -> float | None:
    """Maximum length of a piece of audio; None: only the engine knows it."""
    if settings.engine == "faster-whisper":
        return WINDOW_S
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = Path(settings.model).expanduser() / name
        if path.is_file():
            config = json.loads(path.read_bytes())
            return config.get("feature_extractor", config).get("chunk_length")
    return None


def missing_engine(settings: TranscribeSettings) -> str | None:
    """Why no transcript can be made without a download; None if nothing is missing here."""
    try:
        check_engine(settings)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    if Path(settings.model).expanduser().is_dir() or is_cached(settings):
        return None
    return (
        f"the speech model {settings.model} is not on this machine. `ampere transcribe` downloads "
        "it, or name a folder by --transcribe.model"
    )


def is_cached(settings: TranscribeSettings) -> bool:
    """Whether the hub's cache has the model."""
    if settings.engine == "vllm":
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(settings.model, WEIGHTS["vllm"]), str)
    from faster_whisper import download_model

    try:
        folder = download_model(settings.model, local_files_only=True)
    except (ValueError, OSError):  # no size that it knows; or not in the cache
        return False
    return (Path(folder) / WEIGHTS["faster-whisper"]).exists()
