"""Training data of the small language model: generated sales talk with its correct summary.

It has nothing that the demo catalog is made of (`ampere.synthetic.products` and `speech`), so that
the demo is a fair test: categories, selling points, sentence patterns and brands are different.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ampere.synthetic.products import BRAND_CHARACTERS, draw_brand, load_categories
from ampere.synthetic.speech import FEATURE_LINES, homophones, recognize
from ampere.text.characters import common_characters
from ampere.text.summary import NO_PRODUCT, Summary

FULL_NAME = ("brand", "kind", "function", "noun")
NAME_PARTS = (  # which words a name has; frequent forms are repeated
    *(FULL_NAME,) * 4,
    ("brand", "kind", "noun"),
    ("brand", "kind", "noun"),
    ("brand", "function", "noun"),
    ("brand", "noun"),
    ("kind", "function", "noun"),
    ("kind", "noun"),
)
VERSIONS = [
    "二代", "三代", "升级款", "加强版", "Pro", "Plus", "A3", "X5", "mini", "旗舰款",
    "儿童款", "男士款", "家庭装",
]  # fmt: skip
LATIN_BRANDS = [
    "LUMO", "Kavi", "Nora", "OBEE", "Tivo", "ZEN", "Moka", "Riva", "HOLA", "Yuki", "Dodo",
    "Fino", "VEKA", "Sumi",
]  # fmt: skip
NUMERALS = "一二两三四五六七八九十百千半"
UNITS = [
    "毫升", "升", "克", "斤", "公斤", "片", "只装", "件套", "包", "袋", "码", "支", "盒", "瓶",
    "米", "厘米", "粒", "个", "寸", "ml",
]  # fmt: skip
LINES = (1, 2, 3, 6, 9, 12, 16, 20, 24)  # approximate numbers of lines in a transcript
ARBITRARY = 0.2  # share of a name's words other than the brand that are random characters
PUNCTUATION = ("，", "，", "，", "。", " ", "！", "、")


@dataclass(frozen=True)
class CorpusProduct:
    """A product on sale: the words of its name, and its selling points.

    Attributes:
        words: the words of the name by part, in order.
        arbitrary: parts whose words cannot be known in advance, such as the brand.
        features: the selling points.
        size: size or amount, one more selling point; or None.
    """

    words: dict[str, str]
    arbitrary: frozenset[str]
    features: tuple[str, ...]
    size: str | None

    @property
    def name(self) -> str:
        """The full name."""
        return "".join(self.words.values())

    @property
    def short_name(self) -> str:
        """The noun with one word before it, as sellers abbreviate a name."""
        first = next((self.words[part] for part in ("kind", "function") if part in self.words), "")
        return first + self.words["noun"]


@cache
def load_corpus_categories() -> tuple[dict[str, Any], ...]:
    """Categories of the corpus, without the selling points of the demo."""
    held_out = {feature for category in load_categories() for feature in category.features}
    rows = [row for rows in _read("goods_") for row in rows]
    return tuple(
        row | {"features": [f for f in row["features"] if f not in held_out]} for row in rows
    )


@cache
def load_talk() -> dict[str, list[str]]:
    """Lines by kind; placeholders are {name}, {short}, {f}, {g}, {wrong} and the parts of a name.

    Chatter that contains the words before the demo's selling points is excluded. Since those
    patterns are held out, the words would occur in chatter alone, and the model would learn that no
    selling point follows them.
    """
    leads = {line.partition("{")[0] for line in FEATURE_LINES}
    lines: dict[str, list[str]] = {}
    for lines_by_kind in _read("talk_"):
        for kind, more in lines_by_kind.items():
            lines.setdefault(kind, []).extend(more)
    talk = {kind: list(dict.fromkeys(repeated)) for kind, repeated in lines.items()}
    for kind in ("chatter", "openers"):
        talk[kind] = [
            line for line in talk[kind] if not any(lead in line for lead in leads if len(lead) > 1)
        ]
    return talk


def _read(start: str) -> Iterator[Any]:
    """The content of the corpus files whose names begin with `start`, by name."""
    folder = Path(__file__).parent / "corpus"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.startswith(start):
            yield json.loads(file.read_text("utf-8"))


def draw_corpus_product(rng: random.Random, max_features: int = 5) -> CorpusProduct:
    """Draw a product with at most `max_features` selling points besides its size.

    Its brand, and sometimes other words or selling points, are random characters. Such words can
    only be copied, while a model that reads only known words memorizes them. With too many of them,
    however, the model also copies everyday words that were misheard.
    """
    category = rng.choice(load_corpus_categories())
    words = {
        "brand": _brand(rng),
        "kind": rng.choice(category["kinds"]),
        "function": rng.choice(category["functions"]),
        "noun": rng.choice(category["nouns"]),
    }
    words = {part: words[part] for part in rng.choice(NAME_PARTS)}
    arbitrary = {"brand"} | {part for part in words if part != "brand" and rng.random() < ARBITRARY}
    words |= {part: _characters(rng, 1, 3) for part in words if part in arbitrary - {"brand"}}
    if rng.random() < 0.12:
        words["version"] = rng.choice(VERSIONS)
    pool = [*category["features"], *rng.choice(load_corpus_categories())["features"]]
    features = [
        _perturbed(feature, rng)
        for feature in rng.sample(pool, k=min(max_features, rng.choice((1, 2, 2, 3, 3, 4, 5))))
    ]
    size = _size(rng, category["sizes"]) if rng.random() < 0.7 else None
    return CorpusProduct(words, frozenset(arbitrary), tuple(dict.fromkeys(features)), size)


def _brand(rng: random.Random) -> str:
    if rng.random() < 0.08:
        return rng.choice(LATIN_BRANDS)
    return draw_brand(
        rng, demo=False, characters=BRAND_CHARACTERS if rng.random() < 0.3 else common_characters()
    )


def _characters(rng: random.Random, least: int, most: int) -> str:
    return "".join(rng.choices(common_characters(), k=rng.randint(least, most)))


def _perturbed(feature: str, rng: random.Random) -> str:
    """Change a selling point: 1 in 6 has some characters replaced, 1 in 12 is all random."""
    way = rng.random()
    if way < 3 / 4:
        return feature
    if way < 11 / 12:
        start = rng.randrange(len(feature))
        end = start + rng.randint(1, 3)
        return feature[:start] + _characters(rng, 1, 3) + feature[end:]
    return _characters(rng, 2, 8)


def _size(rng: random.Random, sizes: Sequence[str]) -> str:
    if rng.random() < 0.6:
        return rng.choice(sizes)
    number = (
        "".join(rng.choices(NUMERALS, k=rng.randint(1, 4)))
        if rng.random() < 0.8
        else str(rng.randint(1, 2000))
    )
    return number + rng.choice(UNITS)


def draw_example(rng: random.Random) -> tuple[str, Summary]:
    """Draw a transcript with recognition errors, and its summary; one in seven is only chat.

    The label of a selling point has its recognition errors, and so has the label of a brand that
    is mentioned once: the correct characters cannot be known. Everyday words of a name, and all
    words of a name that is mentioned more often, are labeled without errors.
    """
    count = rng.choice(LINES)
    talk = load_talk()
    noise = rng.choice((0.0, 0.02, 0.03, 0.05))  # error rate per character
    if rng.random() < 0.14:
        chatter = [rng.choice(talk["openers"]), *(_chatter(rng) for _ in range(count))]
        return _heard([_misheard(line, rng, noise) for line in chatter], rng), NO_PRODUCT
    product = draw_corpus_product(rng, max_features=max(1, count // 2))
    if count == 1 and rng.random() < 0.5:
        return _caption(product, rng, noise)
    # A clip cut from a long stream may have only a short name, or none.
    named = rng.choices(("full", "short", "none"), weights=(94, 5, 1))[0]
    if named != "full":
        product = replace(
            product,
            words={part: w for part, w in product.words.items() if part in ("kind", "noun")},
        )
    name, name_lines = _name_lines(product, named, rng, noise)
    features = [
        _misheard(feature, rng, noise)
        for feature in (*product.features, *([product.size] if product.size else []))
    ]
    facts = [*name_lines, *_feature_lines(features, bool(product.size), rng, noise)]
    chatter = [_chatter(rng) for _ in range(max(0, count - len(facts)))]
    if rng.random() < 0.3:
        chatter.append(rng.choice(talk["others"]).format(name=draw_corpus_product(rng).name))
    body = [*facts, *(_misheard(line, rng, noise) for line in chatter)]
    rng.shuffle(body)
    openers = rng.sample(talk["openers"], k=rng.choice((0, 1, 1, 2)))
    spoken = [*(_misheard(line, rng, noise) for line in openers), *body]
    # In the order of the transcript, so that the order of the answer is predictable.
    ordered = sorted(dict.fromkeys(features), key="\n".join(spoken).index)
    return _heard(spoken, rng), Summary(product_name=name, product_features=tuple(ordered))


def _name_lines(
    product: CorpusProduct, named: str, rng: random.Random, noise: float
) -> tuple[str, list[str]]:
    """The label of the name, and the lines that mention it."""
    talk = load_talk()
    if named == "none":
        return "", []
    mentions = [_heard_words(product, rng, noise) for _ in range(rng.choice((1, 2, 2, 3, 3)))]
    often = len(mentions) > 1
    lines = [
        _fill(_name_pattern(rng, often=often), rng, noise, name="".join(m.values()))
        for m in mentions
    ]
    if named == "full" and rng.random() < 0.4:
        short = rng.sample(talk["short_names"], k=rng.choice((1, 1, 2)))
        lines += [_fill(line, rng, noise, short=product.short_name) for line in short]
    if named == "full" and rng.random() < 0.1:
        wrong = replace(
            product,
            words=product.words
            | {"noun": rng.choice(rng.choice(load_corpus_categories())["nouns"])},
        ).name
        lines.append(_fill(rng.choice(talk["slips"]), rng, noise, wrong=wrong, name=product.name))
        mentions.append(product.words)
    if rng.random() < 0.4:
        fitting = [
            line
            for line in talk["parts"]
            if product.words.keys() >= set(re.findall(r"{(\w+)}", line))
        ]
        lines += [_fill(rng.choice(fitting), rng, noise, **product.words)] if fitting else []
    if len(mentions) > 1:
        return product.name, lines
    return _single_mention_label(product, mentions[0]), lines


def _caption(product: CorpusProduct, rng: random.Random, noise: float) -> tuple[str, Summary]:
    """Draw the shortest kind of transcript: a name, perhaps a selling point, and no sentence."""
    words = _heard_words(product, rng, noise)
    features = [_misheard(feature, rng, noise) for feature in product.features[: rng.randint(0, 1)]]
    text = rng.choice(("", "", "这个", "这款")) + rng.choice(("", "，", " ")).join(
        ["".join(words.values()), *features]
    )
    return text, Summary(
        product_name=_single_mention_label(product, words), product_features=tuple(features)
    )


def _single_mention_label(product: CorpusProduct, heard: dict[str, str]) -> str:
    """The label of a name that is mentioned once: random words as misheard, others as spoken."""
    return "".join(
        (heard if part in product.arbitrary else product.words)[part] for part in product.words
    )


def _heard_words(product: CorpusProduct, rng: random.Random, noise: float) -> dict[str, str]:
    """Draw one mention of a name with recognition errors, four times as many in everyday words.

    The model has to learn to correct these: at twice the rate, half of its wrong names were due to
    such a word, copied with its error.
    """
    rates = {part: noise if part in product.arbitrary else 4 * noise for part in product.words}
    return {part: _misheard(word, rng, rates[part]) for part, word in product.words.items()}


def _name_pattern(rng: random.Random, *, often: bool) -> str:
    """Draw a line around a name; a repeated name is sometimes between unrelated words."""
    if often and rng.random() < 0.25:
        before, after = rng.choices(load_talk()["chatter"], k=2)
        return before[: rng.randint(0, 7)] + "{name}" + after[len(after) - rng.randint(0, 7) :]
    return _mixed("names", rng)


def _feature_lines(
    features: Sequence[str], last_is_size: bool, rng: random.Random, noise: float
) -> list[str]:
    talk = load_talk()
    left = list(features[:-1] if last_is_size else features)
    lines = []
    if rng.random() < 0.2:  # sellers repeat themselves
        lines.append(_fill(_feature_pattern(rng), rng, noise, f=rng.choice(left)))
    while left:
        if len(left) > 1 and rng.random() < 0.2:
            lines.append(
                _fill(rng.choice(talk["feature_pairs"]), rng, noise, f=left.pop(), g=left.pop())
            )
        else:
            lines.append(_fill(_feature_pattern(rng), rng, noise, f=left.pop()))
    if last_is_size:
        lines.append(_fill(_mixed("sizes", rng), rng, noise, f=features[-1]))
    return lines


def _feature_pattern(rng: random.Random) -> str:
    """Draw a line around a selling point; a third have a word or two before it and none after.

    Sellers state most selling points this way, but few written patterns are as short, and a model
    that saw them rarely missed four in ten of such selling points. In a quarter of all lines the
    words before it are corrupted: a model that had memorized these words missed half of the selling
    points after words that it knew from chatter, or did not know.
    """
    pattern = rng.choice(_short_patterns()) if rng.random() < 1 / 3 else _mixed("features", rng)
    before, slot, after = re.split(r"({\w+})", pattern, maxsplit=1)
    return (_corrupted(before, rng) if before and rng.random() < 1 / 4 else before) + slot + after


@cache
def _short_patterns() -> tuple[str, ...]:
    return tuple(line for line in load_talk()["features"] if re.fullmatch(r".{1,5}{\w+}", line))


def _mixed(kind: str, rng: random.Random) -> str:
    """Draw a line, or combine the beginning of one with the end of another for more patterns."""
    lines = load_talk()[kind]
    before, slot, after = re.split(r"({\w+})", rng.choice(lines), maxsplit=1)
    if rng.random() < 0.5:
        after = re.split(r"{\w+}", rng.choice(lines), maxsplit=1)[1]
    return before + slot + after


def _chatter(rng: random.Random) -> str:
    """Draw a line without product facts; some are combined or corrupted, to prevent memorizing."""
    lines = load_talk()["chatter"]
    line, way = rng.choice(lines), rng.random()
    if rng.random() < 0.5:  # not every number is a size
        line = re.sub(f"[{NUMERALS}]", lambda _: rng.choice(NUMERALS), line)
    if way < 0.15:
        other = rng.choice(lines)
        return line[: len(line) // 2] + other[len(other) // 2 :]
    return _corrupted(line, rng) if way < 0.25 else line


def _corrupted(line: str, rng: random.Random) -> str:
    """Replace one character of a line by one or two random ones."""
    start = rng.randrange(len(line))
    return line[:start] + _characters(rng, 1, 2) + line[start + 1 :]


def _fill(line: str, rng: random.Random, noise: float, **words: str) -> str:
    """Fill the placeholders of a line; only the words around them get recognition errors."""
    parts = re.split(r"{(\w+)}", line)
    return "".join(
        words[part] if i % 2 else _misheard(part, rng, noise) for i, part in enumerate(parts)
    )


def _misheard(text: str, rng: random.Random, noise: float) -> str:
    """Replace characters by homophones, each with probability `noise`."""
    same = homophones()
    return "".join(rng.choice(same[c]) if rng.random() < noise and same.get(c) else c for c in text)


def _heard(lines: Sequence[str], rng: random.Random) -> str:
    """Join lines that already have their homophone errors, as recognizers of varying quality do."""
    return recognize(
        lines,
        rng,
        homophone=0.0,
        stutter=rng.choice((0.0, 0.1, 0.2)),
        filler=rng.choice((0.0, 0.2, 0.4)),
        comma=rng.choice((0.1, 0.4, 0.7, 1.0)),
        fillers=load_talk()["fillers"],
        marks=PUNCTUATION if rng.random() < 0.3 else "，",
    )
