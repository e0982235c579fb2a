"""UIE on a small ERNIE, or on a stub with known answers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ampere.text.language import Language
from ampere.text.summary import Status
from ampere.text.uie import BATCH, FIELDS, WINDOW, Extractor, load_uie, pair_spans
from tests.helpers.encoders import write_uie


class StubUIE(torch.nn.Module):
    """Spans begin and end at given characters, whatever the question."""

    def __init__(self, begins: set[int], ends: set[int]) -> None:
        super().__init__()
        self.begins, self.ends = begins, ends
        self.batches: list[int] = []

    def forward(self, input_ids: Tensor, **_: Tensor) -> tuple[Tensor, Tensor]:
        self.batches.append(len(input_ids))

        def probable(ids: set[int]) -> Tensor:
            return torch.isin(input_ids, torch.tensor(sorted(ids))).float() * 0.9

        return probable(self.begins), probable(self.ends)


@pytest.fixture
def extractor(tmp_path: Path) -> Extractor:
    return Extractor(str(write_uie(tmp_path / "uie")), "cpu")


def use_stub(extractor: Extractor, begins: str, ends: str) -> None:
    ids = extractor.tokenizer.convert_tokens_to_ids
    extractor.model = StubUIE(set(ids(list(begins))), set(ids(list(ends))))


def test_probabilities_are_sigmoids_of_two_heads(tmp_path: Path) -> None:
    model = load_uie(str(write_uie(tmp_path / "uie")))
    tokens = {
        "input_ids": torch.tensor([[2, 7, 3, 9, 3]]),
        "attention_mask": torch.ones(1, 5, dtype=torch.long),
    }
    starts, ends = model(**tokens)
    hidden = model.encoder(**tokens).last_hidden_state[0, 3]
    expected = 1 / (
        1 + torch.exp(-(model.linear_start.weight[0] @ hidden + model.linear_start.bias[0]))
    )
    assert starts.shape == ends.shape == (1, 5)
    assert starts[0, 3].item() == pytest.approx(expected.item(), abs=1e-6)


def test_both_weight_prefixes_load_the_same(tmp_path: Path) -> None:
    one, other = (load_uie(str(write_uie(tmp_path / p, prefix=p))) for p in ("encoder.", "ernie."))
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
    )


def test_missing_weight_is_named(tmp_path: Path) -> None:
    folder = write_uie(tmp_path / "uie", without="linear_end.weight")
    with pytest.raises(
        ValueError, match=r"uie is not a UIE model: weights linear_end.weight are missing"
    ):
        load_uie(str(folder))


def test_spans_are_parts_of_the_text_and_not_of_the_question(extractor: Extractor) -> None:
    use_stub(extractor, begins="松品", ends="刷牌")
    assert extractor.spans("品牌", "这是松石牙刷，松石牌的松软牙刷") == [
        "松石牙刷",
        "松石牌",
        "松软牙刷",
    ]


def test_fields_make_a_summary(extractor: Extractor) -> None:
    answers = {
        "品牌": ["松石"],
        "品类": ["牙刷"],
        "名称": ["竹炭牙刷"],
        "外观": ["白色"],
        "材质": ["竹炭", "白色"],
    }
    extractor.spans = lambda query, text: answers[query]  # type: ignore[method-assign]
    row = extractor("这个松石竹炭牙刷是白色的")
    assert (row["product_name"], row["product_features"]) == (
        "竹炭牙刷",
        ["松石", "白色", "竹炭"],
    )
    assert (row["status"], row["language"]) == (Status.OK, "zh")
    answers["名称"] = []
    assert extractor("这个松石竹炭牙刷是白色的")["product_name"] == "松石牙刷"
    english = FIELDS[Language.EN]
    answers |= {
        english["brand"]: ["Pine Ridge"],
        english["category"]: ["cutting board"],
        english["name"]: [],
    }
    answers |= {english["appearance"]: [], english["texture"]: []}
    assert extractor("a Pine Ridge cutting board")["product_name"] == "Pine Ridge cutting board"
    answers.update({key: [] for key in answers})
    empty = extractor("大家好")
    assert (empty["text"], empty["status"]) == (None, Status.EMPTY)


def test_long_transcripts_are_read_to_the_end(extractor: Extractor) -> None:
    use_stub(extractor, begins="松", ends="刷")
    assert extractor.spans("名称", "大家晚上好，" * 300 + "松石牙刷") == ["松石牙刷"]
    assert extractor.spans("名称", "") == []


def test_span_at_the_border_of_two_windows_is_found_once(extractor: Extractor) -> None:
    use_stub(extractor, begins="松", ends="刷")
    for before in range(WINDOW - 4, WINDOW + 1):
        assert extractor.spans("名称", "，" * before + "松石牙刷" + "，" * WINDOW) == ["松石牙刷"]


def test_windows_are_read_in_batches(extractor: Extractor) -> None:
    use_stub(extractor, begins="松", ends="刷")
    extractor.spans("名称", "大家晚上好，" * 4000)
    assert sum(extractor.model.batches) >= 60 and max(extractor.model.batches) == BATCH


def test_pair_spans_by_hand() -> None:
    in_text = [2, 3, 4, 5]
    assert pair_spans([0.9, 0, 0.6, 0, 0.8, 0], [0, 0.9, 0, 0.5, 0, 0], in_text) == [
        (2, 3, pytest.approx(0.3))
    ]
    assert pair_spans([0, 0, 0.9, 0, 0, 0], [0, 0, 0.9, 0.9, 0, 0], in_text) == [
        (2, 2, pytest.approx(0.81))
    ]
    assert pair_spans([0.9] * 6, [0.1] * 6, in_text) == []
