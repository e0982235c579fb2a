import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.synthetic.products import (
    DEMO_CATEGORIES,
    demo_products,
    draw_brand,
    draw_product,
    is_demo_brand,
    load_categories,
)
from ampere.text.characters import common_characters

seeds = st.integers(0, 2**32)


def test_categories_have_enough_distinct_words() -> None:
    categories = load_categories()
    assert len(categories) >= DEMO_CATEGORIES
    assert len({category.category for category in categories}) == len(categories)
    for category in categories:
        for words in (
            category.nouns,
            category.kinds,
            category.functions,
            category.features,
            category.sizes,
        ):
            assert words and all(words)
            assert len(set(words)) == len(words)
        assert len(category.features) >= 3


def test_common_characters_are_level_one_of_gb_2312() -> None:
    characters = common_characters()
    assert len(characters) == len(set(characters)) == 3755
    assert characters[0] == "啊" and characters[-1] == "座"  # first and last by pinyin
    assert "的" in characters and "，" not in characters


@settings(deadline=None)
@given(seeds, st.booleans())
def test_brands_are_drawn_for_demo_or_training(seed: int, demo: bool) -> None:
    brand = draw_brand(random.Random(seed), demo=demo)
    assert is_demo_brand(brand) == demo
    assert len(brand) in (2, 3)


def test_a_quarter_of_brands_belongs_to_the_demo() -> None:
    # crc32("云岚") and so on are uniform: 25 % of many brands.
    brands = [a + b for a in common_characters()[:60] for b in common_characters()[60:120]]
    assert 0.22 < sum(map(is_demo_brand, brands)) / len(brands) < 0.28


@settings(deadline=None)
@given(seeds, st.integers(0, DEMO_CATEGORIES - 1))
def test_product_has_words_of_its_category_and_size_first(seed: int, at: int) -> None:
    category = load_categories()[at]
    product = draw_product(random.Random(seed), category, brand="云岚")
    assert product.name == f"云岚{product.kind}{product.function}{product.noun}"
    assert (
        product.noun in category.nouns
        and product.kind in category.kinds
        and product.function in category.functions
    )
    size, *features = product.features
    assert size in category.sizes
    assert (
        len(features) in (2, 3)
        and len(set(features)) == len(features)
        and set(features) <= set(category.features)
    )


def test_demo_products_are_distinct_balanced_and_reproducible() -> None:
    products = list(demo_products(random.Random(3), 95))
    assert len({product.name for product in products}) == len(products) == 95
    assert all(is_demo_brand(product.brand) for product in products)
    counts = Counter(product.category.category for product in products)
    assert len(counts) == DEMO_CATEGORIES and set(counts.values()) == {9, 10}
    assert [p.name for p in demo_products(random.Random(3), 95)] == [p.name for p in products]
    assert [p.name for p in demo_products(random.Random(4), 95)] != [p.name for p in products]
    assert list(demo_products(random.Random(3), 0)) == []
