"""What a search asks for: one type for the library, the command line and the endpoint."""

from dataclasses import dataclass

from ampere.records import Domain
from ampere.text.normalize import readable_text

MAX_K = 1000


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A picture or video, words, or both; and the hits to return.

    Attributes:
        media: bytes of a picture or video; None: words alone.
        text: typed words, the title of the picture, or the product summary of the video's speech;
            None: media alone.
        domain: where the query comes from. None: a picture or words are a page, a video a short.
        domains: domains to search.
        k: hits per domain, 1 to `MAX_K`.

    Raises:
        ValueError: there is neither media nor a text with a letter or digit, no domain, or `k` is
            out of range.
    """

    media: bytes | None = None
    text: str | None = None
    domain: Domain | None = None
    domains: tuple[Domain, ...] = tuple(Domain)
    k: int = 10

    def __post_init__(self) -> None:
        if self.media is None and not readable_text(self.text):
            raise ValueError(
                f"the query is empty: no picture or video, and the text is {self.text!r}; expected "
                "a file, words, or both"
            )
        if not 1 <= self.k <= MAX_K:
            raise ValueError(f"k is {self.k}; expected 1 to {MAX_K}")
        if not self.domains:
            raise ValueError(f"domains is empty; expected some of {', '.join(Domain)}")
