"""Compare what queries find by their raw transcript and by their stored summary, over HTTP.

    ampere serve --workspace W --serve.summarizer          # in another shell
    python benchmarks/serve_engines.py --workspace W [--url http://127.0.0.1:8000] [--model ampere]

Each test clip is posted twice: with its transcript (`transcript=`), which the endpoint summarizes,
and with the summary that the workspace has (`text=`). The vectors are evaluated as `ampere
evaluate` does, on the four tasks whose queries are clips, among the stored vectors of the test
samples. The two mR1 may differ by 3 points: an endpoint summarizes as the stage did.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from bars import check_limits

from ampere.media.source import MAX_BYTES, load
from ampere.models.model_folder import summary_model, text_source
from ampere.pipeline.evaluate import TEST_SAMPLES, test_vectors
from ampere.records import CLIP_DOMAINS, SAMPLES, Domain
from ampere.retrieval.evaluation import evaluate_tasks, mean_recall
from ampere.retrieval.metrics import Vectors
from ampere.store.models import model_folder
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace

MAX_DIFFERENCE = 3.0  # points of mR1
TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A test clip; `transcript` and `summary` are None if it has none."""

    sample_id: str
    product_id: str
    domain: Domain
    media: bytes
    transcript: str | None
    summary: str | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Scores of the same clips with their transcripts and with their stored summaries.

    Attributes:
        by_transcript, by_summary: mR1 in percent.
        clips: number of clips with a transcript, of which the endpoint gave the `same` text.
    """

    by_transcript: float
    by_summary: float
    clips: int
    same: int


def compare(client: httpx.Client, workspace: Workspace, model: str) -> Comparison:
    """Post the test clips of a workspace twice, and score both.

    Args:
        client: of an endpoint that serves the workspace, with a summarizer.
        workspace: with the summaries and the embeddings of the model.
        model: its name.

    Raises:
        RuntimeError: the endpoint searched without its summarizer.
    """
    gallery = test_vectors(workspace, model_folder(workspace, model))
    clips = test_clips(workspace, model)
    spoken = [clip for clip in clips if clip.transcript]
    texts = [served_text(client, clip, model) for clip in spoken]
    scores = {
        field: mean_recall(evaluate_tasks(gallery, query_vectors(client, clips, model, field)))
        for field in ("transcript", "text")
    }
    return Comparison(
        by_transcript=scores["transcript"],
        by_summary=scores["text"],
        clips=len(spoken),
        same=sum(text == clip.summary for text, clip in zip(texts, spoken, strict=True)),
    )


def test_clips(workspace: Workspace, model: str) -> list[Clip]:
    """The clips of test products with their files, transcripts and summaries."""
    folder = model_folder(workspace, model)
    columns = ["sample_id", "product_id", "domain", "media_uris"]
    rows = workspace.table(SAMPLES).read(columns, TEST_SAMPLES).sort_by("sample_id").to_pylist()
    rows = [row for row in rows if row["domain"] in CLIP_DOMAINS]
    ids = [row["sample_id"] for row in rows]
    transcripts = texts_of(workspace, "raw", ids).to_pylist()
    summaries = texts_of(workspace, text_source(folder), ids, summary_model(folder)).to_pylist()
    return [
        Clip(
            sample_id=row["sample_id"],
            product_id=row["product_id"],
            domain=Domain(row["domain"]),
            media=load(row["media_uris"][0], MAX_BYTES),
            transcript=transcript,
            summary=summary,
        )
        for row, transcript, summary in zip(rows, transcripts, summaries, strict=True)
    ]


def served_text(client: httpx.Client, clip: Clip, model: str) -> str | None:
    """What the endpoint makes of a transcript.

    Raises:
        RuntimeError: it did not summarize it.
    """
    fields = {"transcript": clip.transcript, "k": 1}
    query = post(client, "/v1/search", clip, model, fields)["query"]
    # What the transcript itself says is no problem of the endpoint's.
    if notes := [note for note in query["notes"] if "summarizer" in note]:
        raise RuntimeError(
            f"{clip.sample_id}: {'; '.join(notes)}. Start the endpoint with --serve.summarizer and "
            "a --serve.engine-timeout-s that fits the machine"
        )
    return query["text"]


def query_vectors(
    client: httpx.Client, clips: list[Clip], model: str, field: str
) -> dict[Domain, Vectors]:
    """The vectors of clips as queries, by domain; none of pages.

    Args:
        client: of the endpoint.
        clips: what is posted.
        model: that embeds them.
        field: `transcript`, or `text` with the stored summary.
    """
    rows: dict[Domain, list[tuple[Clip, Any]]] = {domain: [] for domain in Domain}
    for clip in clips:
        words = clip.transcript if field == "transcript" else clip.summary
        answer = post(client, "/v1/embed", clip, model, {field: words})
        rows[clip.domain].append((clip, answer["vector"]))
    width = max(len(vector) for of_domain in rows.values() for _, vector in of_domain)
    return {
        domain: Vectors(
            vectors=np.array([vector for _, vector in of_domain], np.float32).reshape(-1, width),
            products=np.array([clip.product_id for clip, _ in of_domain], dtype=str),
            samples=np.array([clip.sample_id for clip, _ in of_domain], dtype=str),
        )
        for domain, of_domain in rows.items()
    }


def post(
    client: httpx.Client, path: str, clip: Clip, model: str, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """The answer to a clip with some fields; those that are None are left out.

    Raises:
        httpx.HTTPStatusError: the endpoint refused it.
    """
    data = {name: value for name, value in fields.items() if value is not None}
    data |= {"domain": str(clip.domain), "model": model}
    response = client.post(path, files={"file": ("clip", clip.media)}, data=data)
    response.raise_for_status()
    return response.json()


def main() -> int:
    """Run the benchmark; return 1 if the scores differ by more than the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="ampere")
    args = parser.parse_args()
    key = os.environ.get("AMPERE_API_KEY")  # where the endpoint requires one
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=args.url, headers=headers, timeout=TIMEOUT_S) as client:
        result = compare(client, Workspace.open(args.workspace), args.model)
    print(f"mR1 by transcript   {result.by_transcript:6.1f} %")
    print(f"mR1 by summary      {result.by_summary:6.1f} %")
    print(f"same text           {result.same} of {result.clips} clips with a transcript")
    difference = abs(result.by_transcript - result.by_summary)
    return check_limits(("difference of mR1", difference, MAX_DIFFERENCE))


if __name__ == "__main__":
    raise SystemExit(main())
