"""UIE: spans of a transcript by a universal extraction model (the paper's table V, row UIE).

UIE (Lu et al., ACL 2022) reads a question, here the name of a field, and a text. It returns for
each token the probability that an answer begins or ends there. The paper extracts brand, category,
name, appearance and texture.
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

# Question per field. Brand, category and name make the product's name; the others are features.
FIELDS = {
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
THRESHOLD = 0.5  # probability from which a span counts, as in the authors' own code
WINDOW = 400  # characters; ERNIE reads 512 tokens
# Characters. Windows overlap by as many, so that each span is complete in one of them.
MAX_SPAN = 30
BATCH = 16  # windows


class UIE(nn.Module):
    """ERNIE with two heads, for the first and the last token of a span.

    Args:
        config: of the encoder.
    """

    def __init__(self, config: ErnieConfig) -> None:
        super().__init__()
        self.encoder = ErnieModel(config, add_pooling_layer=False)
        self.linear_start = nn.Linear(config.hidden_size, 1)
        self.linear_end = nn.Linear(config.hidden_size, 1)

    def forward(self, **tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities that a span begins and that one ends at each token, both float [B, L]."""
        hidden = self.encoder(**tokens).last_hidden_state  # [B, L, D]
        starts, ends = self.linear_start(hidden), self.linear_end(hidden)
        return starts.squeeze(-1).sigmoid(), ends.squeeze(-1).sigmoid()


def load_uie(source: str) -> UIE:
    """Load a model from a hub name or a folder with config.json and model.safetensors.

    The names of the encoder's weights may begin with `encoder.` or `ernie.`; conversions of the
    original use either.

    Raises:
        ValueError: a weight is missing, or the folder contains a model of another kind.
    """
    path = cached_file(source, SAFE_WEIGHTS_NAME)
    assert path is not None, "cached_file raises if the file is missing"
    weights = {
        name.replace("ernie.", "encoder.", 1): value for name, value in load_file(path).items()
    }
    model = UIE(ErnieConfig.from_pretrained(source))
    names = model.state_dict().keys()
    if missing := sorted(names - weights.keys()):
        raise ValueError(
            f"{Path(source).name} is not a UIE model: weights {', '.join(missing[:5])} are missing"
        )
    model.load_state_dict({name: weights[name] for name in names})
    return model.eval()


class Extractor:
    """Transcripts to columns of the summaries table.

    Args:
        source: hub name or folder of a UIE model with a fast tokenizer.
        device: by torch's name.
    """

    def __init__(self, source: str, device: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
        self.model = load_uie(source).to(device)
        self.device = device

    def __call__(self, transcript: str) -> dict[str, Any]:
        """The columns of one transcript.

        Without a name, brand and category make one. Otherwise they are features, unless the name
        contains them.
        """
        text = clean(transcript)
        language = language_of(text)
        spans = {field: self.spans(query, text) for field, query in FIELDS[language].items()}
        best = {field: answers[0] if answers else "" for field, answers in spans.items()}
        space = " " if language is Language.EN else ""
        name = best["name"] or space.join(filter(None, (best["brand"], best["category"])))
        parts = (best["brand"], best["category"]) if best["name"] else ()
        extra = [part for part in parts if part and part not in name]
        features = dict.fromkeys([*extra, *spans["appearance"], *spans["texture"]])
        summary = Summary(product_name=name, product_features=tuple(features))
        return summary_columns(summary) | {"language": language}

    def spans(self, query: str, text: str) -> list[str]:
        """Answers to one question, most probable first, each once."""
        starts = range(0, max(1, len(text) - MAX_SPAN), WINDOW - MAX_SPAN)
        windows = [text[i : i + WINDOW] for i in starts]
        scores: dict[str, float] = {}
        for i in range(0, len(windows), BATCH):
            for span, score in self._scored_spans(query, windows[i : i + BATCH]):
                scores[span] = max(score, scores.get(span, 0.0))
        return sorted(scores, key=lambda span: -scores[span])

    @torch.inference_mode()
    def _scored_spans(self, query: str, windows: list[str]) -> list[tuple[str, float]]:
        """Spans and their probabilities, in the order of the windows."""
        tokens = self.tokenizer(
            [query] * len(windows),
            windows,
            truncation="only_second",
            max_length=512,
            padding=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = tokens.pop("offset_mapping").tolist()
        starts, ends = (p.tolist() for p in self.model(**tokens.to(self.device)))
        spans = []
        for i, window in enumerate(windows):
            in_text = [place for place, part in enumerate(tokens.sequence_ids(i)) if part == 1]
            for first, last, score in pair_spans(starts[i], ends[i], in_text):
                span = window[offsets[i][first][0] : offsets[i][last][1]]
                if len(span) <= MAX_SPAN:
                    spans.append((span, score))
        return spans


def pair_spans(
    starts: list[float], ends: list[float], in_text: list[int]
) -> list[tuple[int, int, float]]:
    """Pair each likely start with the nearest likely end, as (first, last, probability of both).

    A start without a likely end before the next likely start is dropped.

    Args:
        starts: probability of a start by token.
        ends: probability of an end by token.
        in_text: positions of the text's tokens, without those of the question.

    >>> pair_spans([0.9, 0.1, 0.8, 0.1], [0.1, 0.6, 0.2, 0.9], [0, 1, 2, 3])
    [(0, 1, 0.54), (2, 3, 0.7200000000000001)]
    """
    firsts = [place for place in in_text if starts[place] >= THRESHOLD]
    spans = []
    for number, first in enumerate(firsts):
        stop = firsts[number + 1] if number + 1 < len(firsts) else in_text[-1] + 1
        lasts = (place for place in in_text if first <= place < stop and ends[place] >= THRESHOLD)
        last = next(lasts, None)
        if last is not None:
            spans.append((first, last, starts[first] * ends[last]))
    return spans
