"""Commands that search."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from ampere.commands.base import Command
from ampere.config.checks import require_name
from ampere.config.index import Engine, require_engine
from ampere.config.serve import ServeSettings
from ampere.config.settings import Settings
from ampere.records import Domain


@dataclass(kw_only=True)
class Search(Command):
    """Search the index with an image or a video, with words, or with a stored sample."""

    file: Path | None = None
    """Image or video to search with."""
    text: str | None = None
    """Words to search with: alone, or as the title of the image or the summary of the speech."""
    like: str | None = None
    """Id of a stored sample to find similar ones of."""
    weights: tuple[str, ...] = ()
    """Weight of each part of the query, such as file=1 words=0.5 sample=2; each is then embedded
    alone. Default: a file and its words are embedded together."""
    model: str = ""
    """Name of the model under models/ whose index is searched; default: that of the preset."""
    engine: Engine | None = None
    """Engine that searches; default: that of the last `ampere index`, with its URI."""
    uri: str = ""
    """Where Milvus is; see --index.uri."""
    domains: tuple[Literal["page", "short", "live"], ...] = ("page", "short", "live")
    """Domains to search."""
    k: int = 5
    """Number of results per domain, or of groups."""
    offset: int = 0
    """Number of best results, or groups, to skip."""
    filter: str = ""
    """SQL condition on the catalog's columns, such as "price < 100 AND category = 'shoes'"."""
    group_by: str = ""
    """Column to group results by, such as product_id."""
    group_size: int = 1
    """Number of results of each group."""
    min_similarity: float | None = None
    """Least cosine similarity of a result of vector search (-1 to 1)."""
    mode: Literal["vector", "lexical", "hybrid"] | None = None
    """Rank by vectors, by the words of texts, or by both. Default: both for words alone, else by
    vectors."""
    facets: tuple[str, ...] = ()
    """Columns whose values are counted over all rows that pass the filter and hold the words."""
    explain: bool = False
    """Add to each result of --json why it was found."""
    json: bool = False
    """Print JSON instead of a table."""
    settings: tyro.conf.Suppress[Settings]

    name: ClassVar[str] = "search"

    def run(self) -> int:
        model = self.model or self.settings.index.model
        require_name("--model", model)
        if self.engine is not None:
            require_engine("--", self.engine, self.uri)
        elif self.uri:
            raise ValueError(f"--uri is {self.uri}; give --engine milvus with it")
        workspace = self.open()
        from ampere.reports.search import as_json, format_hits, search
        from ampere.retrieval.request import SearchRequest

        request = SearchRequest(
            media=None if self.file is None else self.file.read_bytes(),
            text=self.text,
            sample_id=self.like,
            weights=dict(map(weight, self.weights)),
            domains=tuple(map(Domain, self.domains)),
            k=self.k,
            offset=self.offset,
            filter=self.filter,
            group_by=self.group_by,
            group_size=self.group_size,
            min_similarity=self.min_similarity,
            mode=self.mode,
            facets=self.facets,
            explain=self.explain,
        )
        answer = search(workspace, model, request, self.engine, self.uri)
        print(
            json.dumps(as_json(answer), ensure_ascii=False, indent=2)
            if self.json
            else format_hits(answer)
        )
        return 0


def weight(text: str) -> tuple[str, float]:
    """A part of a query and its weight, from NAME=NUMBER.

    Raises:
        ValueError: it is neither.
    """
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError as error:
        raise ValueError(
            f"--weights has {text!r}; expected NAME=NUMBER, such as words=0.5"
        ) from error


@dataclass(kw_only=True)
class Serve(Command):
    """Serve embedding and search over HTTP until interrupted."""

    serve: ServeSettings

    name: ClassVar[str] = "serve"
    shows_answer: ClassVar[bool] = False

    def run(self) -> int:
        workspace = self.open()
        from serve.run import serve_until_interrupted

        return serve_until_interrupted(workspace, self.serve)
