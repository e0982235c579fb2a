"""Summaries by a small Baichuan 2, from its folder."""

from pathlib import Path

import pytest

from ampere.cli import main
from ampere.config.summarize import SummarizeSettings
from ampere.records import SAMPLES, SUMMARIES
from ampere.store.workspace import Workspace
from ampere.text.llm_engine import prompt_builder
from tests.helpers.baichuan import reference_answer, write_baichuan

TRANSCRIPTS = {"short": "家人们看过来，这款松石牙刷，不伤牙龈", "live": "大家晚上好 12"}


@pytest.mark.nightly  # another engine starts
@pytest.mark.usefixtures("local_ray")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_answers_are_those_of_the_reference(workspace: Workspace, tmp_path: Path) -> None:
    """A real engine, which finds the network by the plugin and runs no code of the folder."""
    folder = write_baichuan(tmp_path / "tiny", "7B", seed=21, quote_logit=5.5)
    workspace.table(SAMPLES).append(
        [{"sample_id": d, "domain": d, "text": text} for d, text in TRANSCRIPTS.items()]
    )
    model = ["--summarize.model", str(folder), "--summarize.prompt", "bare"]
    model += ["--summarize.dtype", "float32"]  # vLLM takes bfloat16 where the processor has it
    assert main(["summarize", "--workspace", workspace.uri, *model]) == 0
    rows = workspace.table(SUMMARIES).read().to_pylist()
    builder = prompt_builder(SummarizeSettings(model=str(folder), prompt="bare"))
    assert {row["sample_id"] for row in rows} == set(TRANSCRIPTS)
    for row in rows:
        (prompt,) = builder.prompts(TRANSCRIPTS[row["sample_id"]])
        expected = reference_answer(folder, builder.tokenizer, prompt.tokens)
        assert row["raw_output"] == expected and row["weights"].startswith("tiny@")
