"""Sales talk to train the small language model on: products, the lines that sellers say, and what of it is the answer.

Everything the demo catalogue is made of (ampere.catalog.goods and speech) stays out of it, so that the demo is a fair
test: other categories' words, other selling points, other sentence patterns, and no brand of the demo's side.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from ampere.catalog.goods import BRAND_CHARACTERS, common_characters, draw_brand, load_categories
from ampere.catalog.speech import recognise
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
PUNCTUATION = ("，", "，", "，", "。", " ", "！", "、")


@dataclass(frozen=True)
class Goods:
    """One thing on sale: the words of its name, and its selling points."""

    words: dict[str, str]
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
    return tuple(row | {"features": [f for f in row["features"] if f not in held_out]} for row in rows)


@cache
def load_talk() -> dict[str, list[str]]:
    """Lines by kind; the placeholders are {name}, {short}, {f}, {g}, {wrong} and the parts of a name."""
    lines: dict[str, list[str]] = {}
    for found in _read("talk_"):
        for kind, more in found.items():
            lines.setdefault(kind, []).extend(more)
    return {kind: list(dict.fromkeys(found)) for kind, found in lines.items()}


def _read(start: str) -> Iterator[Any]:
    folder = files("ampere.text").joinpath("corpus")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.startswith(start):
            yield json.loads(file.read_text("utf-8"))


def draw_goods(rng: random.Random) -> Goods:
    """A product whose brand, and sometimes another word, is made of arbitrary characters."""
    category = rng.choice(load_goods())
    words = {
        "brand": _brand(rng),
        "kind": rng.choice(category["kinds"]),
        "function": rng.choice(category["functions"]),
        "noun": rng.choice(category["nouns"]),
    }
    words = {part: words[part] for part in rng.choice(NAME_PARTS)}
    for part in words:
        if part != "brand" and rng.random() < 0.25:
            words[part] = "".join(rng.choices(common_characters(), k=rng.randint(1, 3)))
    if rng.random() < 0.12:
        words["version"] = rng.choice(VERSIONS)
    pool = [*category["features"], *rng.choice(load_goods())["features"]]
    features = rng.sample(pool, k=rng.choice((1, 2, 2, 3, 3, 4, 5)))
    size = rng.choice(category["sizes"]) if rng.random() < 0.7 else None
    return Goods(words, tuple(dict.fromkeys(features)), size)


def _brand(rng: random.Random) -> str:
    if rng.random() < 0.08:
        return rng.choice(LATIN_BRANDS)
    return draw_brand(rng, demo=False, characters=BRAND_CHARACTERS if rng.random() < 0.3 else common_characters())


def draw_example(rng: random.Random) -> tuple[str, Summary]:
    """One transcript as a recogniser writes it, and its summary. One in twelve is chat alone."""
    count = rng.choice((3, 6, 8, 10, 12, 16, 20))
    talk = load_talk()
    if rng.random() < 0.08:
        lines = [rng.choice(talk["openers"]), *(rng.choice(talk["chatter"]) for _ in range(count))]
        return _heard(lines, rng), NO_PRODUCT
    goods = draw_goods(rng)
    # A piece cut out of a long stream may hold a shortened name, or none.
    named = rng.choices(("full", "short", "none"), weights=(92, 5, 3))[0]
    if named != "full":
        goods = replace(goods, words={part: w for part, w in goods.words.items() if part in ("kind", "noun")})
    facts = [*_name_lines(goods, named, rng), *_feature_lines(goods, rng)]
    noise = [rng.choice(talk["chatter"]) for _ in range(max(0, count - len(facts)))]
    if rng.random() < 0.2:
        noise.append(rng.choice(talk["others"]).format(name=draw_goods(rng).name))
    body = facts + noise
    rng.shuffle(body)
    lines = [*rng.sample(talk["openers"], k=rng.choice((0, 1, 1, 2))), *body]
    name = goods.name if named != "none" else ""
    said = [*goods.features, *([goods.size] if goods.size else [])]
    # In the order in which they were said, so that the order of the answer can be known from the transcript.
    features = tuple(sorted(said, key="\n".join(lines).index))
    return _heard(lines, rng), Summary(product_name=name, product_features=features)


def _name_lines(goods: Goods, named: str, rng: random.Random) -> list[str]:
    talk = load_talk()
    if named == "none":
        return []
    lines = [line.format(name=goods.name) for line in rng.sample(talk["names"], k=rng.choice((1, 2, 2, 2, 3)))]
    if named == "full" and rng.random() < 0.4:
        lines += [
            line.format(short=goods.short_name) for line in rng.sample(talk["short_names"], k=rng.choice((1, 1, 2)))
        ]
    if named == "full" and rng.random() < 0.1:
        wrong = replace(goods, words=goods.words | {"noun": rng.choice(rng.choice(load_goods())["nouns"])}).name
        lines.append(rng.choice(talk["slips"]).format(wrong=wrong, name=goods.name))
    if rng.random() < 0.4:
        part, words = rng.choice(list(goods.words.items()))
        lines += [line.format(**{part: words}) for line in rng.sample(talk["parts"], k=4) if f"{{{part}}}" in line][:1]
    return lines


def _feature_lines(goods: Goods, rng: random.Random) -> list[str]:
    talk = load_talk()
    left = list(goods.features)
    lines = []
    while left:
        if len(left) > 1 and rng.random() < 0.25:
            lines.append(rng.choice(talk["feature_pairs"]).format(f=left.pop(), g=left.pop()))
        else:
            lines.append(rng.choice(talk["features"]).format(f=left.pop()))
    if goods.size:
        lines.append(rng.choice(talk["sizes"]).format(f=goods.size))
    if rng.random() < 0.2:  # sellers say it again
        lines.append(rng.choice(talk["features"]).format(f=rng.choice(goods.features)))
    return lines


def _heard(lines: Sequence[str], rng: random.Random) -> str:
    """What recognisers of different quality write down."""
    return recognise(
        lines,
        rng,
        homophone=rng.choice((0.0, 0.02, 0.03, 0.05)),
        stutter=rng.choice((0.0, 0.1, 0.2)),
        filler=rng.choice((0.0, 0.2, 0.4)),
        comma=rng.choice((0.1, 0.4, 0.7, 1.0)),
        fillers=load_talk()["fillers"],
        marks=PUNCTUATION if rng.random() < 0.3 else "，",
    )
