"""Equal audio is transcribed once: tasks claim audio before they pass it to an engine."""

from collections.abc import Collection


class Claims:
    """Who transcribes which audio; an actor, since tasks in many processes ask.

    Args:
        known: hashes of audio that has a transcript already.
    """

    def __init__(self, known: Collection[str]) -> None:
        self._owners: dict[str, str] = dict.fromkeys(known, "")

    def claim(self, audio_hash: str, sample_id: str) -> bool:
        """Whether a sample is the one whose audio is transcribed, of all with this audio.

        The answer stays the same: a task whose worker died asks again.
        """
        return self._owners.setdefault(audio_hash, sample_id) == sample_id
