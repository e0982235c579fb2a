"""Unusual texts: spaced, invisible characters, placeholders, loops, and failed pieces."""

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from ampere.config.summarize import SummarizeSettings
from ampere.models.networks import text_inputs
from ampere.models.tokenizer import build_tokenizer
from ampere.pipeline.summarize.stage import SummarizeStage
from ampere.records import SAMPLES, Domain
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace
from ampere.text.checks.audit import audit
from ampere.text.clean import clean
from ampere.text.llm_engine import prompt_builder
from ampere.text.normalize import normalize, readable_text

GUIDE = Path(__file__).parents[2] / "docs/guides/summaries.md"
TRANSCRIPT = "家人们看过来，这款云岚薄荷控油洗发水五百毫升大瓶装，iPhone 15 Pro 都没它火，控油蓬松"
SPACED = (
    "家 人 们 看 过 来 ， 这 款 云 岚 薄 荷 控 油 洗 发 水 五 百 毫 升 大 瓶 装 ， iPhone 15 Pro "
    "都 没 它 火 ， 控 油 蓬 松"
)
VARIANTS = [
    SPACED,
    SPACED.replace(" ", "\u3000"),
    SPACED.replace(" ", " \u200b "),
    "\ufeff" + "\u200b".join(TRANSCRIPT),
    "\x00".join(TRANSCRIPT),
    TRANSCRIPT.replace("15", "１５"),
]
UNREADABLE = [
    "。。。，，，！！！",
    "... !!! ???",
    "🔥👍🎉💯👨‍👩‍👧",
    "nan",
    " NaN\n",
    "None",
    "NULL",
    "<NA>",
    "n/a",
]
UNREADABLE += ["", "  ", "\u3164", "\u200b\ufeff", "——……", "♪ ♪ ♪"]


def table_rows() -> list[tuple[str, str]]:
    """Text and normalized text of each row of the guide's table of rules, as JSON."""
    section = GUIDE.read_text("utf-8").split("## Normalization")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    return [(text.strip("`"), normalized.strip("`")) for _, text, normalized in rows[1:]]


def test_guide_lists_all_rules() -> None:
    assert len(table_rows()) == 12


@pytest.mark.parametrize(("text", "normalized"), table_rows())
def test_examples_of_the_guide(text: str, normalized: str) -> None:
    assert readable_text(json.loads(text)) == json.loads(normalized)


@pytest.mark.parametrize(
    "text",
    [
        "iPhone 15 Pro 手机壳",
        "买 2 送 1",
        "Hello, 世界",
        "USB-C 2.0 m 数据线",
        "Кофе в зёрнах",
        "กาแฟ ดี",
        "삼성 갤럭시 버즈",
        "第一行\n第二行",
    ],
)
def test_words_and_numbers_are_not_joined(text: str) -> None:
    assert normalize(text) == text


@pytest.mark.parametrize("text", VARIANTS)
def test_spaced_transcript_is_prompted_and_checked_as_the_plain_one(text: str) -> None:
    builder = prompt_builder(SummarizeSettings(dtype="float32"))
    assert [p.tokens for p in builder.prompts(text)] == [
        p.tokens for p in builder.prompts(TRANSCRIPT)
    ]
    assert audit(clean(text), "云岚薄荷控油洗发水", ["五百毫升"]) == []


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer([TRANSCRIPT, "shampoo for oily hair"])


class TextNetwork(torch.nn.Module):
    """What `text_inputs` needs of a network."""

    reads_text = True
    max_text_tokens = 33


@pytest.mark.parametrize("text", VARIANTS)
def test_spaced_text_is_embedded_as_the_plain_one(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    """Titles, summaries and typed queries all pass `text_inputs`."""
    network = TextNetwork()
    ids, mask = text_inputs(network, tokenizer, [text, TRANSCRIPT], torch.device("cpu"))
    assert ids[0].tolist() == ids[1].tolist() and mask[0].tolist() == mask[1].tolist()
    assert tokenizer.unk_token_id not in ids[0].tolist()


@pytest.mark.parametrize("text", UNREADABLE)
def test_text_without_words_is_missing(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert readable_text(text) is None
    _, mask = text_inputs(TextNetwork(), tokenizer, [text, "a"], torch.device("cpu"))
    assert mask[0].sum() == 0  # read as a missing text
    assert mask[1].sum() == 3


def test_unreadable_transcripts_ask_no_engine_and_titles_count_as_missing(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w")
    rows = [
        {"sample_id": f"{domain}-{i}", "domain": str(domain), "text": text}
        for domain in (Domain.LIVE, Domain.PAGE)
        for i, text in enumerate([*UNREADABLE, "洗 发 水", "洗发水"])
    ]
    workspace.table(SAMPLES).append(rows)
    stage = SummarizeStage(workspace, SummarizeSettings(dtype="float32"))
    known, pending = stage.without_work(stage.inputs())
    missing = [row for table in known for row in table.to_pylist()]
    assert len(missing) == len(UNREADABLE) and {row["status"] for row in missing} == {"missing"}
    assert pending["sample_id"].to_pylist() == [f"live-{len(UNREADABLE)}"]  # its equal shares it
    for source in ("raw", "llm"):
        pages = [f"page-{i}" for i in range(len(UNREADABLE) + 2)]
        titles = texts_of(workspace, source, pages).to_pylist()
        assert titles == [None] * len(UNREADABLE) + [
            "洗 发 水",
            "洗发水",
        ]  # as the catalog has them


def test_loops_of_a_recognizer_make_the_prompt_of_one_copy() -> None:
    builder = prompt_builder(SummarizeSettings(dtype="float32"))
    sentence = (
        "这款云岚薄荷控油洗发水，五百毫升大瓶装，控油蓬松，温和不刺激，敏感头皮也能用，不会后悔。"
    )
    (once,) = builder.prompts(sentence)
    for copies in (3, 50, 1300):  # of 47 characters, up to 183 kB
        (looped,) = builder.prompts(sentence * copies)
        assert looped.tokens == once.tokens
