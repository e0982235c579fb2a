from hypothesis import given
from hypothesis import strategies as st

from ampere.text.sizing import BLOCK_TOKENS, MAX_NUM_SEQS, EngineSize, engine_size


def test_engine_size_by_hand() -> None:
    # 700 + 100 tokens are whole blocks; the mean is 600 + 100, rounded up to 704. The memory holds
    # 2^20 / 1000 = 1048 tokens.
    size = engine_size(
        [500, 700], answer_tokens=100, limit=4096, kv_bytes_per_token=1000, memory=2**20
    )
    assert size == EngineSize(max_model_len=800, max_num_seqs=1, kv_cache_bytes=1000 * 816)


def test_gpu_uses_all_free_memory() -> None:
    size = engine_size([500], answer_tokens=12, limit=4096, kv_bytes_per_token=1000, memory=None)
    assert size == EngineSize(512, MAX_NUM_SEQS, None)


def test_fewer_prompts_at_once_need_less_memory() -> None:
    size = engine_size(
        [500],
        answer_tokens=12,
        limit=4096,
        kv_bytes_per_token=1000,
        memory=2**30,
        max_num_seqs=4,
    )
    assert size == EngineSize(512, 4, 4 * 512 * 1000)


@given(
    st.lists(st.integers(1, 5000), min_size=1),
    st.integers(1, 500),
    st.integers(600, 6000),
    st.integers(1, 100_000),
    st.integers(1, 2**34),
)
def test_longest_transcript_always_fits(
    prompts: list[int], answer: int, limit: int, token_bytes: int, memory: int
) -> None:
    size = engine_size(
        prompts, answer_tokens=answer, limit=limit, kv_bytes_per_token=token_bytes, memory=memory
    )
    assert min(limit, max(prompts) + answer) <= size.max_model_len <= limit
    assert 1 <= size.max_num_seqs <= MAX_NUM_SEQS
    assert size.kv_cache_bytes is not None
    assert size.kv_cache_bytes >= (size.max_model_len + BLOCK_TOKENS) * token_bytes
