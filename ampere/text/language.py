"""Which of the prompts' languages a text is in."""

from enum import StrEnum


class Language(StrEnum):
    """Languages that there are prompts in."""

    ZH = "zh"
    EN = "en"


def language_of(text: str) -> Language:
    """Chinese if a tenth of the letters are Chinese characters: Chinese sellers use English words, not the reverse.

    A text without letters is Chinese. (A language detector would answer among a hundred languages, for two prompts.)
    """
    letters = [character for character in text if character.isalpha()]
    chinese = sum("\u3400" <= character <= "\u9fff" for character in letters)
    return Language.ZH if 10 * chinese >= len(letters) else Language.EN
