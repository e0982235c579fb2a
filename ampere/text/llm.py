"""Which language model a name means, and how an answer of it becomes a row of the `summaries` table."""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from ampere.config import SHIPPED_MODEL
from ampere.text.audit import audit
from ampere.text.summary import AnswerError, Status, parse_summary

METHOD = "llm"


def model_source(name: str) -> str:
    """What vLLM loads for a model setting: the shipped folder, a local folder, or a hub name.

    Raises:
        FileNotFoundError: the name looks like a path, and there is no model at it.
    """
    if name == SHIPPED_MODEL:
        folder = str(files("ampere.text") / "small_lm")
        if not (Path(folder) / "config.json").exists():
            raise FileNotFoundError(f"the shipped model is missing at {folder}; install ampere whole")
        return folder
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise FileNotFoundError(f"summarize.model is the folder {path}, which has no config.json")
        return str(path.resolve())
    if name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"summarize.model is {name}, and there is no such folder")
    return name


def model_identity(name: str) -> str:
    """Name of a model in the table: a hub name as it is, a folder's name with a checksum of what lies in it."""
    folder = Path(model_source(name))
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix != ".md"):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return f"{name if name == SHIPPED_MODEL else folder.name}@{digest.hexdigest()[:12]}"


def answer_fields(answer: dict[str, Any], transcript: str) -> dict[str, Any]:
    """The columns of a summary row that come from one answer of the engine.

    Args:
        answer: generated_text, num_input_tokens and num_generated_tokens, and `__inference_error__`, which names
            what went wrong inside the engine or is empty.
        transcript: what the answer is about.

    Raises:
        AnswerError: the engine failed on this row, or its answer is no summary.
    """
    if answer.get("__inference_error__"):
        raise AnswerError(f"the language model failed on this transcript: {answer['__inference_error__']}")
    summary = parse_summary(answer["generated_text"])
    return {
        "product_name": summary.product_name,
        "product_features": list(summary.product_features),
        "text": summary.text if summary.status is Status.OK else None,
        "status": summary.status,
        "flags": audit(transcript, summary.product_name, summary.product_features),
        "raw_output": answer["generated_text"],
        "prompt_tokens": answer["num_input_tokens"],
        "generated_tokens": answer["num_generated_tokens"],
    }
