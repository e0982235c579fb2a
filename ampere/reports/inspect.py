"""`ampere inspect`: a sample's transcript and summaries side by side, with the checks' flags."""

from functools import partial
from typing import Any

import pyarrow.compute as pc
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ampere.records import FAILURES, SAMPLES, SUMMARIES, TRANSCRIPTS
from ampere.store.transcripts import is_readable, with_transcripts
from ampere.store.workspace import Workspace


def print_inspection(workspace: Workspace, sample_id: str, console: Console) -> None:
    """Print a sample's text beside each of its summaries.

    Raises:
        FileNotFoundError: no such sample.
    """
    where = pc.field("sample_id") == sample_id
    columns = ["sample_id", "domain", "product_id", "text"]
    samples = workspace.table(SAMPLES).read(columns, where)
    if not samples.num_rows:
        raise FileNotFoundError(f"{workspace.uri} has no sample {sample_id!r}")
    transcripts = workspace.table(TRANSCRIPTS)
    (sample,) = with_transcripts(samples, transcripts.dataset()).to_pylist()
    is_given = is_readable(samples["text"])[0].as_py()
    heard = [] if is_given else transcripts.read(where=where).to_pylist()
    order = [("method", "ascending"), ("model", "ascending")]
    summaries = workspace.table(SUMMARIES).read(where=where).sort_by(order).to_pylist()
    of_stage = pc.starts_with(pc.field("stage"), "summarize")
    failures = workspace.table(FAILURES).read(where=of_stage & where).to_pylist()
    unheard = workspace.table(FAILURES).read(where=(pc.field("stage") == "transcribe") & where)
    product = sample["product_id"] or "(unknown)"
    # As Text: in a string, brackets of an id would be markup.
    table = Table(title=Text(f"{sample_id}, {sample['domain']} of product {product}"), expand=True)
    # Chinese has no spaces to break a line at: rich would cut the text after one line.
    add_column = partial(table.add_column, ratio=1, overflow="fold")
    kind = "title" if sample["domain"] == "page" else "transcript"
    text = sample["text"]
    by_model = "".join(f" by {row['model']}: {_outcome(row)}" for row in heard)
    add_column(f"{kind}{by_model}, {len(text)} characters" if text else f"{kind}{by_model}")
    cells: list[Group | Text] = [Text(text or "(none)")]
    if unheard.num_rows and not heard and not is_given:
        cells = [_failure(unheard.to_pylist()[0])]
    for summary in summaries:
        by_model = f" by {summary['model']}" if summary["model"] else ""
        add_column(f"method {summary['method']}{by_model}: {summary['status']}")
        cells.append(_summary(summary))
    for failure in failures:
        add_column("failed")
        cells.append(_failure(failure))
    if not summaries and not failures:
        add_column("no summary yet")
        cells.append(
            Text("pages keep their title" if kind == "title" else "run `ampere summarize`")
        )
    table.add_row(*cells)
    console.print(table)


def _outcome(row: dict[str, Any]) -> str:
    """Status and language of a transcript."""
    return ", ".join(filter(None, [row["status"], row["language"]]))


def _failure(row: dict[str, Any]) -> Text:
    return Text(f"{row['error_type']}: {row['message']}", "red")


def _summary(row: dict[str, Any]) -> Group:
    """A summary's name, features, flags, weights and raw output, one below the other."""
    # Some methods do not separate names from features: their rows have a text only.
    name = row["text"] if row["product_name"] is None else row["product_name"]
    lines = [Text(name or "(no product)", "bold")]
    lines += [Text(f"- {feature}") for feature in row["product_features"] or ()]
    lines += [Text(f"! {flag}", "red") for flag in row["flags"] or ()]
    if row["weights"]:
        prompt = f", prompt {row['prompt_version']}" if row["prompt_version"] else ""
        lines.append(Text(f"\n{row['weights']}{prompt}, {row['language']}", "dim"))
    if row["raw_output"] is not None:
        pieces = f" in {row['pieces']} pieces" if (row["pieces"] or 1) > 1 else ""
        tokens = f"{row['prompt_tokens']} tokens in, {row['generated_tokens']} out{pieces}"
        lines.append(Text(f"{tokens}, finish reason {row['finish_reason']}", "dim"))
        lines.append(Text(f"answer: {row['raw_output']}", "dim"))
    return Group(*lines)
