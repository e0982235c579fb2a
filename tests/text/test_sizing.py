from hypothesis import given
from hypothesis import strategies as st

from ampere.text.sizing import BLOCK, MOST_SEQUENCES, EngineSize, engine_size


def test_by_hand() -> None:
    # 700 + 100 tokens fit exactly; the usual transcript has 600 + 100, rounded up to 704; 2^20 / 1000 bytes = 1048
    size = engine_size([500, 700], answer=100, limit=4096, token_bytes=1000, memory=2**20)
    assert size == EngineSize(max_model_len=800, max_num_seqs=1, kv_cache_bytes=1000 * 816)


def test_a_gpu_takes_all_that_is_left() -> None:
    assert engine_size([500], answer=12, limit=4096, token_bytes=1000, memory=None) == EngineSize(
        512, MOST_SEQUENCES, None
    )


@given(
    st.lists(st.integers(1, 5000), min_size=1),
    st.integers(1, 500),
    st.integers(600, 6000),
    st.integers(1, 100_000),
    st.integers(1, 2**34),
)
def test_the_longest_always_fits(
    counts: list[int], answer: int, limit: int, token_bytes: int, memory: int
) -> None:
    size = engine_size(counts, answer=answer, limit=limit, token_bytes=token_bytes, memory=memory)
    assert min(limit, max(counts) + answer) <= size.max_model_len <= limit
    assert 1 <= size.max_num_seqs <= MOST_SEQUENCES
    assert size.kv_cache_bytes is not None
    assert size.kv_cache_bytes >= (size.max_model_len + BLOCK) * token_bytes
