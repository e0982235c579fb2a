"""The language of a text, among those that have prompts."""

from enum import StrEnum


class Language(StrEnum):
    """Languages with prompts."""

    ZH = "zh"
    EN = "en"


def language_of(text: str) -> Language:
    """Chinese if at least a tenth of the letters are Chinese characters, else English.

    The threshold is low because Chinese sellers mix in English words, and English sellers no
    Chinese. A text without letters is Chinese. A language detector would choose among a hundred
    languages, and there are two prompts.
    """
    letters = [character for character in text if character.isalpha()]
    chinese = sum("\u3400" <= character <= "\u9fff" for character in letters)
    return Language.ZH if 10 * chinese >= len(letters) else Language.EN
