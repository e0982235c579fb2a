import pytest

from ampere.text.baichuan.alibi import check_backend, slopes
from tests.helpers.baichuan import interleaved_slopes


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 32, 40, 63])
def test_slopes_are_those_of_the_published_code(heads: int) -> None:
    assert slopes(heads) == pytest.approx(interleaved_slopes(heads))


def test_backend_that_ignores_the_biases_is_refused() -> None:
    check_backend("FLASH_ATTN")
    with pytest.raises(ValueError, match=r"FLASHINFER, which ignores .* Use baichuan2-7b-4bit"):
        check_backend("FLASHINFER")
