"""How large an engine must be for the transcripts at hand, from their own token counts."""

from collections.abc import Sequence
from dataclasses import dataclass

BLOCK = 16  # tokens; vLLM keeps attention states in blocks of so many
MOST_SEQUENCES = 256  # at once
CPU_CACHE_BYTES = 4 * 2**30  # the most an engine on a CPU sets aside for attention states


@dataclass(frozen=True)
class EngineSize:
    """What an engine is started with.

    Attributes:
        max_model_len: tokens of the longest prompt and its answer.
        max_num_seqs: transcripts in work at once, as far as their attention states fit; vLLM lets the rest wait.
        kv_cache_bytes: memory for attention states; None: all that is left of the GPU's memory.
    """

    max_model_len: int
    max_num_seqs: int
    kv_cache_bytes: int | None


def engine_size(
    counts: Sequence[int], *, answer: int, limit: int, token_bytes: int, memory: int | None
) -> EngineSize:
    """Size an engine for prompts of these lengths. On a GPU these decide `max_model_len` only.

    Args:
        counts: tokens of the prompts, of all or of a sample that has the longest.
        answer: tokens of the longest answer.
        limit: tokens that the model can read and write.
        token_bytes: attention states of one token, in bytes.
        memory: most bytes for attention states; None: as many as the GPU has.

    >>> engine_size([500, 700], answer=100, limit=4096, token_bytes=8192, memory=2**30)
    EngineSize(max_model_len=800, max_num_seqs=187, kv_cache_bytes=1073741824)
    """
    longest = min(limit, _blocks(max(counts) + answer))
    if memory is None:
        return EngineSize(longest, MOST_SEQUENCES, None)
    usual = _blocks(sum(counts) // len(counts) + answer)
    sequences = max(1, min(MOST_SEQUENCES, memory // (usual * token_bytes)))
    # No less than the longest transcript alone, or the engine would refuse to start.
    tokens = max(longest + BLOCK, min(sequences * usual, memory // token_bytes))
    return EngineSize(longest, sequences, tokens * token_bytes)


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK) * BLOCK
