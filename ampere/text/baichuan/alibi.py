"""Biases by distance (ALiBi), with which the 13B models know positions."""

import math

# Others ignore the slopes without an error, such as FLASHINFER of vLLM 0.32.
BACKENDS = ("CPU_ATTN", "FLASH_ATTN", "TRITON_ATTN")


def slopes(heads: int) -> list[float]:
    """The factor of each head's bias by distance.

    >>> slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    >>> slopes(6)
    [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]
    """
    power = 2 ** math.floor(math.log2(heads))
    others = range(1, 2 * (heads - power), 2)
    return [2 ** (-8 * number / power) for number in range(1, power + 1)] + [
        2 ** (-4 * number / power) for number in others
    ]


def check_backend(name: str) -> None:
    """Refuse an attention backend of vLLM that does not add the biases.

    Raises:
        ValueError: the backend is not one of `BACKENDS`.
    """
    if name not in BACKENDS:
        raise ValueError(
            f"vLLM chose the attention backend {name}, which ignores the ALiBi biases of Baichuan "
            f"13B; expected one of {', '.join(BACKENDS)}. Use baichuan2-7b-4bit or another model "
            "on this GPU"
        )
