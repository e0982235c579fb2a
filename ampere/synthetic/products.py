"""Invented products, for the demo catalog and for training the small language model.

A product's name is brand + kind + function + noun (云岚 + 薄荷 + 控油 + 洗发水). Brands are
invented. A brand's checksum decides whether it belongs to the demo (`is_demo_brand`) or to the
language model's training, so the two never share a product, however many are drawn.
"""

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

BRAND_CHARACTERS = (
    "云岚禾沐悦雅芙兰朵锦尚佳乐康源泉星辰晨曦语墨竹青柏松溪林森岭峰海澜蓝紫白素简朴慕诗韵琴棋画卷"
    "轩庭苑阁坊堂庄园田野谷麦穗果蜜糖甜暖阳光明亮灵巧慧心悠然宁静安泰福禄喜庆吉祥瑞丰盛华美丽优品"
)
DEMO_CATEGORIES = 10  # the first ten of goods.json have an outline of their own in looks.py


@dataclass(frozen=True, kw_only=True)
class Category:
    """A product category and the words that sellers use for it."""

    category: str
    shape: str
    nouns: tuple[str, ...]
    kinds: tuple[str, ...]
    functions: tuple[str, ...]
    features: tuple[str, ...]
    sizes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Product:
    """One product; `features` are the selling points on its page and in its clips, size first."""

    category: Category
    brand: str
    kind: str
    function: str
    noun: str
    features: tuple[str, ...]

    @property
    def name(self) -> str:
        """The full name."""
        return self.brand + self.kind + self.function + self.noun


@cache
def load_categories() -> tuple[Category, ...]:
    """All categories of goods.json, the demo's first."""
    rows = json.loads(files("ampere.synthetic").joinpath("goods.json").read_text(encoding="utf-8"))
    fields: list[dict[str, Any]] = [
        {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
        for row in rows
    ]
    return tuple(Category(**row) for row in fields)


def is_demo_brand(brand: str) -> bool:
    """Whether a brand belongs to the demo catalog; all others belong to the model's training."""
    return zlib.crc32(brand.encode()) % 4 == 0


def draw_brand(rng: random.Random, *, demo: bool, characters: str = BRAND_CHARACTERS) -> str:
    """Draw a brand of two or three characters, for the demo or for training."""
    while True:
        brand = "".join(rng.choices(characters, k=rng.choice((2, 2, 3))))
        if is_demo_brand(brand) == demo:
            return brand


def draw_product(rng: random.Random, category: Category, *, brand: str) -> Product:
    """Draw one product of a category: its words, its size and two or three other features."""
    features = [rng.choice(category.sizes), *rng.sample(category.features, k=rng.choice((2, 3)))]
    return Product(
        category=category,
        brand=brand,
        kind=rng.choice(category.kinds),
        function=rng.choice(category.functions),
        noun=rng.choice(category.nouns),
        features=tuple(features),
    )


def demo_products(rng: random.Random, count: int) -> Iterator[Product]:
    """Draw `count` products with distinct names, round-robin over the demo's categories."""
    seen: set[str] = set()
    while len(seen) < count:
        category = load_categories()[len(seen) % DEMO_CATEGORIES]
        product = draw_product(rng, category, brand=draw_brand(rng, demo=True))
        if product.name not in seen:
            seen.add(product.name)
            yield product
