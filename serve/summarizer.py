"""The summarizing deployment: transcripts of queries to product summaries, by a language model."""

import asyncio

from ray import serve

from ampere.config.summarize import SummarizeSettings, TextSource
from ampere.text.llm_engine import (
    CompletionReader,
    engine_arguments,
    prompt_builder,
    sampling_params,
    size_for_prompts,
)
from ampere.text.normalize import readable_text
from ampere.text.summary import LLM_TEXTS, Summary
from serve.vllm_engine import VllmEngine

ONGOING, QUEUED = 32, 64  # transcripts
WARM_UP = "大家好，这款保温杯五百毫升"  # compiles the grammar of the answers


@serve.deployment(
    max_ongoing_requests=ONGOING, max_queued_requests=QUEUED, graceful_shutdown_timeout_s=10
)
class SummarizerDeployment:
    """Holds one language model under vLLM, run as the summarize stage runs it.

    Args:
        settings: of the stage.
    """

    def __init__(self, settings: SummarizeSettings) -> None:
        from ampere.text.llm import JOIN_TOKENS

        self.builder = prompt_builder(settings)
        longest = self.builder.overhead + self.builder.piece_tokens + JOIN_TOKENS
        size = size_for_prompts(settings, [longest], max_num_seqs=ONGOING)
        self.reader = CompletionReader(settings, size.max_model_len)
        self.sampling = sampling_params(settings)
        self.engine = VllmEngine(self.builder.model.source, engine_arguments(settings, size))
        self.is_warm = False

    async def summarize(self, transcript: str, source: TextSource = "llm") -> str | None:
        """What a network reads as the text of a clip; the same as `texts_of` of a stored summary.

        A cancelled call ends its work in the engine.

        Args:
            transcript: what is said in the clip.
            source: what of the summary the network reads; one of `LLM_TEXTS`.

        Returns:
            None: the transcript names no product, or nothing can be read in it.

        Raises:
            AnswerError: the model's answer is no summary.
        """
        from ampere.text.llm import summary_fields

        if readable_text(transcript) is None:
            return None
        prompts = await asyncio.to_thread(self.builder.prompts, transcript)
        if not prompts:
            return None
        answers = await asyncio.gather(
            *(
                self.engine.generate({"prompt_token_ids": prompt.tokens}, self.sampling)
                for prompt in prompts
            )
        )
        completions = [
            self.reader.read(prompt.text, len(prompt.tokens), tokens)
            for prompt, tokens in zip(prompts, answers, strict=True)
        ]
        fields = await asyncio.to_thread(summary_fields, completions)
        summary = Summary(
            product_name=fields["product_name"], product_features=tuple(fields["product_features"])
        )
        text = LLM_TEXTS[source](summary)
        return None if readable_text(text) is None else text

    async def check_health(self) -> None:
        """Called by Serve from time to time, and before the first request."""
        self.engine.check()
        if not self.is_warm:
            await self.summarize(WARM_UP)
            self.is_warm = True

    def __del__(self) -> None:
        if engine := getattr(self, "engine", None):
            engine.stop()
