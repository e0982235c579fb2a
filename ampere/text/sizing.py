"""The size of an engine for given transcripts, from their own token counts."""

from collections.abc import Sequence
from dataclasses import dataclass

BLOCK_TOKENS = 16  # vLLM allocates attention states in blocks of this size
MAX_NUM_SEQS = 256
CPU_CACHE_BYTES = 4 * 2**30  # maximum memory for attention states of an engine on a CPU


@dataclass(frozen=True)
class EngineSize:
    """Arguments that an engine is started with.

    Attributes:
        max_model_len: tokens of the longest prompt and its answer.
        max_num_seqs: transcripts processed at once, if their attention states fit; vLLM queues the
            rest.
        kv_cache_bytes: memory for attention states; None: all free memory of the GPU.
    """

    max_model_len: int
    max_num_seqs: int
    kv_cache_bytes: int | None


def engine_size(
    prompt_tokens: Sequence[int],
    *,
    answer_tokens: int,
    limit: int,
    kv_bytes_per_token: int,
    memory: int | None,
    max_num_seqs: int = MAX_NUM_SEQS,
) -> EngineSize:
    """Size an engine for prompts of these lengths; on a GPU they decide `max_model_len` only.

    Args:
        prompt_tokens: length of each prompt, of all or of a sample that has the longest.
        answer_tokens: maximum length of an answer.
        limit: maximum tokens of a prompt and its answer together.
        kv_bytes_per_token: bytes of the attention states of one token.
        memory: maximum bytes for attention states; None: what the GPU has.
        max_num_seqs: prompts that there may be at once.

    >>> engine_size(
    ...     [500, 700], answer_tokens=100, limit=4096, kv_bytes_per_token=8192, memory=2**30
    ... )
    EngineSize(max_model_len=800, max_num_seqs=187, kv_cache_bytes=1073741824)
    """
    longest = min(limit, _round_up(max(prompt_tokens) + answer_tokens))
    if memory is None:
        return EngineSize(longest, max_num_seqs, None)
    mean = _round_up(sum(prompt_tokens) // len(prompt_tokens) + answer_tokens)
    num_seqs = max(1, min(max_num_seqs, memory // (mean * kv_bytes_per_token)))
    # At least the longest transcript alone; with less the engine would refuse to start.
    cached_tokens = max(longest + BLOCK_TOKENS, min(num_seqs * mean, memory // kv_bytes_per_token))
    return EngineSize(longest, num_seqs, cached_tokens * kv_bytes_per_token)


def _round_up(tokens: int) -> int:
    """To whole blocks."""
    return -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS
