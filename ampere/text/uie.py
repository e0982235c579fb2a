"""UIE: spans of a transcript by a universal extraction model (the paper's table V, row UIE).

UIE (Lu et al., ACL 2022) reads a question, here the name of a field, and a text, and gives for each token the
probability that an answer begins or ends there. The paper asks for brand, category, name, appearance and texture.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, ErnieConfig, ErnieModel
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from ampere.text.clean import clean
from ampere.text.language import Language, language_of
from ampere.text.summary import Summary, summary_columns

FIELDS = {  # asked as; brand, category and name make the product's name, the others are features
    Language.ZH: {
        "brand": "品牌",
        "category": "品类",
        "name": "名称",
        "appearance": "外观",
        "texture": "材质",
    },
    Language.EN: {
        "brand": "brand",
        "category": "category",
        "name": "product name",
        "appearance": "appearance",
        "texture": "material",
    },
}
LIKELY = 0.5  # probability from which a span counts, as in the authors' own use
WINDOW = 400  # characters read at once; ERNIE reads 512 tokens
LONGEST_SPAN = (
    30  # characters; windows have as many in common, so that each span stands whole in one of them
)
BATCH = 16  # windows


class UIE(nn.Module):
    """ERNIE with two heads.

    Args:
        config: of the encoder.
    """

    def __init__(self, config: ErnieConfig) -> None:
        super().__init__()
        self.encoder = ErnieModel(config, add_pooling_layer=False)
        self.linear_start = nn.Linear(config.hidden_size, 1)
        self.linear_end = nn.Linear(config.hidden_size, 1)

    def forward(self, **tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Probability that a span begins, and that one ends, at each token: float [B, L] both."""
        hidden = self.encoder(**tokens).last_hidden_state
        return self.linear_start(hidden).squeeze(-1).sigmoid(), self.linear_end(hidden).squeeze(
            -1
        ).sigmoid()


def load_uie(source: str) -> UIE:
    """A model of a hub name or folder with config.json and model.safetensors.

    The encoder's weights may be called `encoder.…` or `ernie.…`; conversions of the original use either.

    Raises:
        ValueError: a weight is missing, or the folder holds a model of another kind.
    """
    path = cached_file(source, SAFE_WEIGHTS_NAME)
    assert path is not None, "cached_file raises where there is no such file"
    weights = {
        name.replace("ernie.", "encoder.", 1): value for name, value in load_file(path).items()
    }
    model = UIE(ErnieConfig.from_pretrained(source))
    wanted = model.state_dict()
    if missing := sorted(wanted.keys() - weights.keys()):
        raise ValueError(
            f"{Path(source).name} is no UIE model: its weights lack {', '.join(missing[:5])}"
        )
    model.load_state_dict({name: weights[name] for name in wanted})
    return model.eval()


class Extractor:
    """Transcripts to columns of the summaries table.

    Args:
        source: hub name or folder of a UIE model with a fast tokenizer.
        device: torch's name of it.
    """

    def __init__(self, source: str, device: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
        self.model = load_uie(source).to(device)
        self.device = device

    def __call__(self, transcript: str) -> dict[str, Any]:
        text = clean(transcript)
        language = language_of(text)
        found = {field: self.spans(asked, text) for field, asked in FIELDS[language].items()}
        best = {field: spans[0] if spans else "" for field, spans in found.items()}
        between = " " if language is Language.EN else ""
        name = best["name"] or between.join(filter(None, (best["brand"], best["category"])))
        parts = (best["brand"], best["category"]) if best["name"] else ()
        extra = [part for part in parts if part and part not in name]
        features = dict.fromkeys([*extra, *found["appearance"], *found["texture"]])
        summary = Summary(product_name=name, product_features=tuple(features))
        return summary_columns(summary, summary.text) | {"language": language}

    def spans(self, asked: str, text: str) -> list[str]:
        """Answers to one question, likeliest first, each once."""
        starts = range(0, max(1, len(text) - LONGEST_SPAN), WINDOW - LONGEST_SPAN)
        windows = [text[i : i + WINDOW] for i in starts]
        likely: dict[str, float] = {}
        for i in range(0, len(windows), BATCH):
            for span, score in self._found(asked, windows[i : i + BATCH]):
                likely[span] = max(score, likely.get(span, 0.0))
        return sorted(likely, key=lambda span: -likely[span])

    @torch.inference_mode()
    def _found(self, asked: str, windows: list[str]) -> list[tuple[str, float]]:
        """Spans and their probabilities, in the order of the windows."""
        tokens = self.tokenizer(
            [asked] * len(windows),
            windows,
            truncation="only_second",
            max_length=512,
            padding=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = tokens.pop("offset_mapping").tolist()
        starts, ends = (p.tolist() for p in self.model(**tokens.to(self.device)))
        found = []
        for i, window in enumerate(windows):
            inside = [place for place, part in enumerate(tokens.sequence_ids(i)) if part == 1]
            for begin, end, score in pair_spans(starts[i], ends[i], inside):
                span = window[offsets[i][begin][0] : offsets[i][end][1]]
                if len(span) <= LONGEST_SPAN:
                    found.append((span, score))
        return found


def pair_spans(
    starts: list[float], ends: list[float], inside: list[int]
) -> list[tuple[int, int, float]]:
    """Each likely beginning with the nearest likely end, as (first, last, probability of both).

    Args:
        starts, ends: probabilities by token.
        inside: tokens of the text, not of the question.

    >>> pair_spans([0.9, 0.1, 0.8, 0.1], [0.1, 0.6, 0.2, 0.9], [0, 1, 2, 3])
    [(0, 1, 0.54), (2, 3, 0.7200000000000001)]
    """
    begins = [place for place in inside if starts[place] >= LIKELY]
    found = []
    for number, begin in enumerate(begins):
        stop = begins[number + 1] if number + 1 < len(begins) else inside[-1] + 1
        end = next(
            (place for place in inside if begin <= place < stop and ends[place] >= LIKELY), None
        )
        if end is not None:
            found.append((begin, end, starts[begin] * ends[end]))
    return found
