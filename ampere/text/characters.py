"""The common Chinese characters."""

from functools import cache


@cache
def common_characters() -> str:
    """The 3,755 common Chinese characters: level 1 of GB 2312, which orders them by pinyin."""
    codes = (bytes([row, col]) for row in range(0xB0, 0xD8) for col in range(0xA1, 0xFF))
    return "".join(code.decode("gb2312", errors="ignore") for code in codes)
