"""Sales talk to train the small language model on: products, the lines that sellers say, and what of it is the answer.

Everything the demo catalogue is made of (ampere.catalog.goods and speech) stays out of it, so that the demo is a fair
test: other categories' words, other selling points, other sentence patterns, and no brand of the demo's side.
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
from ampere.synthetic.speech import FEATURE_LINES, homophones, recognise
from ampere.text.characters import common_characters
from ampere.text.summary import NO_PRODUCT, Summary

FULL_NAME = ("brand", "kind", "function", "noun")
NAME_PARTS = (  # of a product's name, the commoner forms more often
    *(FULL_NAME,) * 4,
    ("brand", "kind", "noun"),
    ("brand", "kind", "noun"),
    ("brand", "function", "noun"),
    ("brand", "noun"),
    ("kind", "function", "noun"),
    ("kind", "noun"),
)
VERSIONS = [
    "二代",
    "三代",
    "升级款",
    "加强版",
    "Pro",
    "Plus",
    "A3",
    "X5",
    "mini",
    "旗舰款",
    "儿童款",
    "男士款",
    "家庭装",
]
LATIN_BRANDS = [
    "LUMO",
    "Kavi",
    "Nora",
    "OBEE",
    "Tivo",
    "ZEN",
    "Moka",
    "Riva",
    "HOLA",
    "Yuki",
    "Dodo",
    "Fino",
    "VEKA",
    "Sumi",
]
NUMERALS = "一二两三四五六七八九十百千半"
UNITS = [
    "毫升",
    "升",
    "克",
    "斤",
    "公斤",
    "片",
    "只装",
    "件套",
    "包",
    "袋",
    "码",
    "支",
    "盒",
    "瓶",
    "米",
    "厘米",
    "粒",
    "个",
    "寸",
    "ml",
]
LINES = (1, 2, 3, 6, 9, 12, 16, 20, 24)  # of a transcript, about
ARBITRARY = 0.2  # of the words of a name that are no brand
PUNCTUATION = ("，", "，", "，", "。", " ", "！", "、")


@dataclass(frozen=True)
class Goods:
    """One thing on sale: the words of its name, and its selling points.

    Attributes:
        words: by part of the name.
        arbitrary: parts whose words nobody could know, such as the brand.
        features: the selling points.
        size: one more, or None.
    """

    words: dict[str, str]
    arbitrary: frozenset[str]
    features: tuple[str, ...]
    size: str | None

    @property
    def name(self) -> str:
        return "".join(self.words.values())

    @property
    def short_name(self) -> str:
        first = next((self.words[part] for part in ("kind", "function") if part in self.words), "")
        return first + self.words["noun"]


@cache
def load_goods() -> tuple[dict[str, Any], ...]:
    """Categories to draw from, without any selling point of the demo's."""
    held_out = {feature for category in load_categories() for feature in category.features}
    rows = [row for rows in _read("goods_") for row in rows]
    return tuple(
        row | {"features": [f for f in row["features"] if f not in held_out]} for row in rows
    )


@cache
def load_talk() -> dict[str, list[str]]:
    """Lines by kind; the placeholders are {name}, {short}, {f}, {g}, {wrong} and the parts of a name.

    Chatter with the words that lead to the demo's selling points is left out: those patterns being held out, such words
    would be heard before chatter alone, and a model learns that nothing follows them.
    """
    leads = {line.partition("{")[0] for line in FEATURE_LINES}
    lines: dict[str, list[str]] = {}
    for found in _read("talk_"):
        for kind, more in found.items():
            lines.setdefault(kind, []).extend(more)
    talk = {kind: list(dict.fromkeys(found)) for kind, found in lines.items()}
    for kind in ("chatter", "openers"):
        talk[kind] = [
            line for line in talk[kind] if not any(lead in line for lead in leads if len(lead) > 1)
        ]
    return talk


def _read(start: str) -> Iterator[Any]:
    folder = Path(__file__).parent / "corpus"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.startswith(start):
            yield json.loads(file.read_text("utf-8"))


def draw_goods(rng: random.Random, most: int = 5) -> Goods:
    """A product whose brand, and sometimes another word or a selling point, is made of arbitrary characters.

    Words that cannot be known beforehand can only be copied; a model that reads known ones alone learns them by heart.
    Too many of them, and it takes a misheard everyday word for one more. It has at most `most` features.
    """
    category = rng.choice(load_goods())
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
    pool = [*category["features"], *rng.choice(load_goods())["features"]]
    features = [
        _blurred(feature, rng)
        for feature in rng.sample(pool, k=min(most, rng.choice((1, 2, 2, 3, 3, 4, 5))))
    ]
    size = _size(rng, category["sizes"]) if rng.random() < 0.7 else None
    return Goods(words, frozenset(arbitrary), tuple(dict.fromkeys(features)), size)


def _brand(rng: random.Random) -> str:
    if rng.random() < 0.08:
        return rng.choice(LATIN_BRANDS)
    return draw_brand(
        rng, demo=False, characters=BRAND_CHARACTERS if rng.random() < 0.3 else common_characters()
    )


def _characters(rng: random.Random, least: int, most: int) -> str:
    return "".join(rng.choices(common_characters(), k=rng.randint(least, most)))


def _blurred(feature: str, rng: random.Random) -> str:
    """Most as they are, one in six with some characters replaced, one in twelve of arbitrary characters alone."""
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
    """One transcript as a recogniser writes it, and its summary. One in seven is chat alone.

    A feature is labelled as it was heard, homophones and all, and so is a brand that is heard once: what is right
    cannot be known then. Everyday words of a name, and all of one that is heard more often, are labelled as they were
    said.
    """
    count = rng.choice(LINES)
    talk = load_talk()
    noise = rng.choice((0.0, 0.02, 0.03, 0.05))  # of the recogniser, per character
    if rng.random() < 0.14:
        chatter = [rng.choice(talk["openers"]), *(_chatter(rng) for _ in range(count))]
        return _heard([_misheard(line, rng, noise) for line in chatter], rng), NO_PRODUCT
    goods = draw_goods(rng, most=max(1, count // 2))
    if count == 1 and rng.random() < 0.5:
        return _caption(goods, rng, noise)
    # A piece cut out of a long stream may hold a shortened name, or none.
    named = rng.choices(("full", "short", "none"), weights=(94, 5, 1))[0]
    if named != "full":
        goods = replace(
            goods, words={part: w for part, w in goods.words.items() if part in ("kind", "noun")}
        )
    name, name_lines = _name_lines(goods, named, rng, noise)
    features = [
        _misheard(feature, rng, noise)
        for feature in (*goods.features, *([goods.size] if goods.size else []))
    ]
    facts = [*name_lines, *_feature_lines(features, bool(goods.size), rng, noise)]
    chatter = [_chatter(rng) for _ in range(max(0, count - len(facts)))]
    if rng.random() < 0.3:
        chatter.append(rng.choice(talk["others"]).format(name=draw_goods(rng).name))
    body = [*facts, *(_misheard(line, rng, noise) for line in chatter)]
    rng.shuffle(body)
    openers = rng.sample(talk["openers"], k=rng.choice((0, 1, 1, 2)))
    spoken = [*(_misheard(line, rng, noise) for line in openers), *body]
    # In the order in which they were said, so that the order of the answer can be known from the transcript.
    ordered = sorted(dict.fromkeys(features), key="\n".join(spoken).index)
    return _heard(spoken, rng), Summary(product_name=name, product_features=tuple(ordered))


def _name_lines(
    goods: Goods, named: str, rng: random.Random, noise: float
) -> tuple[str, list[str]]:
    """The name to be found, and the lines that say it."""
    talk = load_talk()
    if named == "none":
        return "", []
    mentions = [_heard_words(goods, rng, noise) for _ in range(rng.choice((1, 2, 2, 3, 3)))]
    often = len(mentions) > 1
    lines = [
        _fill(_name_pattern(rng, often=often), rng, noise, name="".join(m.values()))
        for m in mentions
    ]
    if named == "full" and rng.random() < 0.4:
        short = rng.sample(talk["short_names"], k=rng.choice((1, 1, 2)))
        lines += [_fill(line, rng, noise, short=goods.short_name) for line in short]
    if named == "full" and rng.random() < 0.1:
        wrong = replace(
            goods, words=goods.words | {"noun": rng.choice(rng.choice(load_goods())["nouns"])}
        ).name
        lines.append(_fill(rng.choice(talk["slips"]), rng, noise, wrong=wrong, name=goods.name))
        mentions.append(goods.words)
    if rng.random() < 0.4:
        fitting = [
            line
            for line in talk["parts"]
            if goods.words.keys() >= set(re.findall(r"{(\w+)}", line))
        ]
        lines += [_fill(rng.choice(fitting), rng, noise, **goods.words)] if fitting else []
    if len(mentions) > 1:
        return goods.name, lines
    return _known(goods, mentions[0]), lines


def _caption(goods: Goods, rng: random.Random, noise: float) -> tuple[str, Summary]:
    """The shortest of transcripts: a name, perhaps a selling point, and no sentence around them."""
    words = _heard_words(goods, rng, noise)
    features = [_misheard(feature, rng, noise) for feature in goods.features[: rng.randint(0, 1)]]
    text = rng.choice(("", "", "这个", "这款")) + rng.choice(("", "，", " ")).join(
        ["".join(words.values()), *features]
    )
    return text, Summary(product_name=_known(goods, words), product_features=tuple(features))


def _known(goods: Goods, heard: dict[str, str]) -> str:
    """What can be known of a name that was heard once."""
    return "".join(
        (heard if part in goods.arbitrary else goods.words)[part] for part in goods.words
    )


def _heard_words(goods: Goods, rng: random.Random, noise: float) -> dict[str, str]:
    """A name's words as they are heard once; everyday words are misheard more often, to be learnt from it.

    Half of the wrong names of a model that met them at twice the rate were such a word, copied as it was misheard.
    """
    rates = {part: noise if part in goods.arbitrary else 4 * noise for part in goods.words}
    return {part: _misheard(word, rng, rates[part]) for part, word in goods.words.items()}


def _name_pattern(rng: random.Random, *, often: bool) -> str:
    """A line around a name; a name that is said often can be known by that alone, so some have no words to tell it."""
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
    if rng.random() < 0.2:  # sellers say it again
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
    """A line around a selling point; a third are a word or two before it and nothing after.

    Sellers say most of theirs so, but few of the written patterns are as short, and a model that saw them seldom
    missed four in ten of such selling points. In a quarter of all lines the words before it are spoilt: a model that
    knows such words by heart missed every other selling point after words that it knew from chatter, or not at all.
    """
    pattern = rng.choice(_short_patterns()) if rng.random() < 1 / 3 else _mixed("features", rng)
    before, slot, after = re.split(r"({\w+})", pattern, maxsplit=1)
    return (_spoilt(before, rng) if before and rng.random() < 1 / 4 else before) + slot + after


@cache
def _short_patterns() -> tuple[str, ...]:
    return tuple(line for line in load_talk()["features"] if re.fullmatch(r".{1,5}{\w+}", line))


def _mixed(kind: str, rng: random.Random) -> str:
    """A line, or the beginning of one and the end of another: more patterns than were written down."""
    lines = load_talk()[kind]
    before, slot, after = re.split(r"({\w+})", rng.choice(lines), maxsplit=1)
    if rng.random() < 0.5:
        after = re.split(r"{\w+}", rng.choice(lines), maxsplit=1)[1]
    return before + slot + after


def _chatter(rng: random.Random) -> str:
    """A line that says nothing of the product; some are made of two, or spoilt, so that they are not known by heart."""
    lines = load_talk()["chatter"]
    line, way = rng.choice(lines), rng.random()
    if rng.random() < 0.5:  # a number is no size because it is one
        line = re.sub(f"[{NUMERALS}]", lambda _: rng.choice(NUMERALS), line)
    if way < 0.15:
        other = rng.choice(lines)
        return line[: len(line) // 2] + other[len(other) // 2 :]
    return _spoilt(line, rng) if way < 0.25 else line


def _spoilt(line: str, rng: random.Random) -> str:
    """One of its characters replaced by one or two arbitrary ones."""
    start = rng.randrange(len(line))
    return line[:start] + _characters(rng, 1, 2) + line[start + 1 :]


def _fill(line: str, rng: random.Random, noise: float, **words: str) -> str:
    """A line with its placeholders filled; only the words around them are misheard."""
    parts = re.split(r"{(\w+)}", line)
    return "".join(
        words[part] if i % 2 else _misheard(part, rng, noise) for i, part in enumerate(parts)
    )


def _misheard(text: str, rng: random.Random, noise: float) -> str:
    same = homophones()
    return "".join(rng.choice(same[c]) if rng.random() < noise and same.get(c) else c for c in text)


def _heard(lines: Sequence[str], rng: random.Random) -> str:
    """What recognisers of different quality write down of lines whose characters they have chosen already."""
    return recognise(
        lines,
        rng,
        homophone=0.0,
        stutter=rng.choice((0.0, 0.1, 0.2)),
        filler=rng.choice((0.0, 0.2, 0.4)),
        comma=rng.choice((0.1, 0.4, 0.7, 1.0)),
        fillers=load_talk()["fillers"],
        marks=PUNCTUATION if rng.random() < 0.3 else "，",
    )
