"""vLLM engines under `ray.data.llm` that transcribe pieces of audio.

`ray.data.llm` has no stage for transcription. Here the engine stage itself forms the prompt of a
row and reads its answer, both as the model's class does it (`SpeechPrompts`), so that the language
can be asked for first where a model needs it.
"""

import os
import time
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ampere.config.transcribe import TranscribeSettings
from ampere.pipeline.runner.engine_patches import patched
from ampere.pipeline.runner.engines import engine_pool, helper_tasks
from ampere.pipeline.runner.ray_data import map_batches
from ampere.pipeline.runner.stage import Work
from ampere.pipeline.transcribe.pieces import HEARD_SCHEMA, OUTCOME, heard_json
from ampere.text.speech_engines.vllm_speech import (
    SpeechPrompts,
    check_model,
    engine_arguments,
    sampling_params,
)
from ampere.text.vllm_env import ENGINE_ENV

if TYPE_CHECKING:
    import ray.data


class EngineFailed(RuntimeError):
    """The engine failed on a prompt; the message is Ray's."""


def heard_by_engines(
    pieces: "ray.data.Dataset", work: Work, settings: TranscribeSettings
) -> "ray.data.Dataset":
    """Rows of `HEARD_SCHEMA` from rows of `PIECE_SCHEMA`.

    Raises:
        ValueError: the model does not transcribe, or does not know the language.
    """
    os.environ.update(ENGINE_ENV)  # Ray's engine stage imports parts of vLLM in this process too
    from ray.data.llm import build_processor

    check_model(settings)  # engines would load it three times before they give up
    config = engine_pool(
        "transcribe",
        settings,
        model=settings.model,
        arguments=engine_arguments(settings),
        batch_size=work.batch_size if work.isolated else None,
    )
    helpers = helper_tasks("transcribe", settings)
    processor = patched(
        build_processor(
            config,
            preprocess=lambda row: {"sampling_params": {}},  # the engine stage makes them
            preprocess_map_kwargs=helpers,
            postprocess_map_kwargs=helpers,
        ),
        extend=lambda stage: speech_stage(stage, settings),
    )
    return map_batches(
        processor(pieces), select_heard, batch_format="numpy", batch_size=None, **helpers
    )


def speech_stage(stage: type[Any], settings: TranscribeSettings) -> type[Any]:
    """The class of an engine stage whose rows are pieces of audio.

    Args:
        stage: of `ray.data.llm`.
        settings: of the stage.
    """
    sampling = sampling_params(settings)

    class SpeechStage(stage):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.prompts = SpeechPrompts(self.llm._vllm_config.model_config)
            self.prompts.check(settings)
            # An engine works on many pieces at once, so none has seconds of its own.
            self.worker = {"worker": uuid.uuid4().hex, "ready": time.time()}
            self.worker |= {"seconds": 0.0, "retried": False}

        async def _generate_with_error_handling(
            self, row: dict[str, Any], batch_uuid: uuid.UUID
        ) -> dict[str, Any]:
            index = row[self.IDX_IN_BATCH_COLUMN]
            # Taken out, since the rest of the row goes on.
            audio = np.frombuffer(row.pop("audio"), np.float32)

            async def ask(prompt: dict[str, Any], changes: dict[str, Any]) -> list[int]:
                asked = {self.IDX_IN_BATCH_COLUMN: index, "sampling_params": sampling | changes}
                answer = await super(SpeechStage, self)._generate_with_error_handling(
                    asked | prompt, batch_uuid
                )
                if answer[OUTCOME]:
                    raise EngineFailed(answer[OUTCOME])
                return tokens_of(answer)

            heard, error = "", ""
            try:
                heard = heard_json(
                    await self.prompts.hear(ask, audio, settings.language, row["names"] or "")
                )
            except EngineFailed as failure:
                error = str(failure)
            except Exception as failure:  # the per-row edge: a strange piece fails only its clip
                error = f"{type(failure).__name__}: {failure}"
            return self.worker | {
                self.IDX_IN_BATCH_COLUMN: index,
                "heard": heard,
                OUTCOME: error,
            }

    return SpeechStage


def tokens_of(answer: dict[str, Any]) -> list[int]:
    """The tokens that an engine generated."""
    return [int(token) for token in answer["generated_tokens"]]


def select_heard(batch: dict[str, Any]) -> pa.Table:
    """Rows of `HEARD_SCHEMA` from those of the engine stage."""
    count = len(batch["sample_id"])
    missing = [None] * count
    columns = {name: list(batch.get(name, missing)) for name in HEARD_SCHEMA.names}
    return pa.table(
        {name: [plain(value) for value in values] for name, values in columns.items()},
        schema=HEARD_SCHEMA,
    )


def plain(value: Any) -> Any:
    """A cell without NumPy's types; NaN, which stands for a missing cell, becomes None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value
