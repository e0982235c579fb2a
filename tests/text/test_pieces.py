import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.text.pieces import merge, split
from ampere.text.summary import MAX_FEATURES, NO_PRODUCT, Summary


def lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def product(name: str, *features: str) -> Summary:
    return Summary(product_name=name, product_features=features)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [""]),
        ("一二三四五六", ["一二三四五六"]),
        ("一二三。四五六。", ["一二三。", "四五六。"]),
        ("一。二。三。四。", ["一。二。三。", "四。"]),  # as few as whole sentences allow
        ("一二\n三。四五六", ["一二\n", "三。四五六"]),  # lines before sentences
        ("一二三，四五六七", ["一二三，", "四五六七"]),  # a long sentence at a comma
        ("一二三四五六七八", ["一二三四", "五六七八"]),  # without a comma anywhere
        ("Go on. Now it", ["Go on. ", "Now it"]),
    ],
)
def test_split_by_hand(text: str, pieces: list[str]) -> None:
    max_tokens = 7 if text.startswith("Go") else 6
    assert split(text, max_tokens, lengths) == pieces


@settings(deadline=None)
@given(st.text(st.sampled_from("一二。，\n .a")), st.integers(1, 9))
def test_pieces_fit_and_join_to_the_text(text: str, max_tokens: int) -> None:
    pieces = split(text, max_tokens, lengths)
    assert "".join(pieces) == text
    assert all(len(piece) <= max_tokens for piece in pieces)


def test_character_longer_than_a_piece_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has 3 tokens; expected at most 2 .*max_model_len"):
        split("龘", 2, lambda texts: [3 * len(text) for text in texts])


def test_product_of_most_pieces_wins_and_others_features_are_dropped() -> None:
    pieces = [
        product("松石牙刷", "软毛"),
        product("云岚面霜", "保湿"),
        product("松实牙刷", "一板十支"),
        NO_PRODUCT,
    ]
    assert merge(pieces) == product("松石牙刷", "软毛", "一板十支")


def test_longer_name_wins_over_its_part() -> None:
    assert merge([product("牙刷", "软毛"), product("松石竹炭牙刷")]) == product(
        "松石竹炭牙刷", "软毛"
    )


def test_generic_name_does_not_decide_for_another_product() -> None:
    pieces = [product("松石面霜", f) for f in ("保湿", "清爽", "不黏")]
    pieces += [product("云岚修护面霜", "淡斑"), product("面霜", "五十克")]
    for order in (pieces, pieces[::-1]):
        merged = merge(order)
        assert merged.product_name == "松石面霜"
        assert set(merged.product_features) == {"保湿", "清爽", "不黏", "五十克"}


def test_variants_with_other_numbers_or_letters_are_other_products() -> None:
    phones = [product("小米14手机", "512G"), product("小米15手机", "骁龙8至尊版")]
    assert merge(phones) == phones[0]
    serums = [
        product("维生素C精华液", "美白"),
        product("维生素E精华液", "保湿滋润"),
        product("维生素E精华液", "抗氧化"),
    ]
    assert merge(serums) == product("维生素E精华液", "保湿滋润", "抗氧化")


def test_most_frequent_of_similar_names_wins() -> None:
    assert (
        merge([product("松实牙刷"), product("松石牙刷"), product("松石牙刷")]).product_name
        == "松石牙刷"
    )


def test_feature_with_another_number_or_negation_is_another_feature() -> None:
    merged = merge(
        [
            product("卫衣", "可机洗", "500毫升"),
            product("卫衣", "不可机洗", "300毫升", "五百毫升", "克机洗"),
        ]
    )
    assert merged.product_features == ("可机洗", "500毫升", "不可机洗", "300毫升")


def test_first_name_wins_a_tie() -> None:
    assert merge([product("面霜"), product("台灯")]).product_name == "面霜"


def test_features_of_nameless_pieces_count_and_homophones_are_one() -> None:
    pieces = [product("卫衣", "不起球"), product("", "不起求", "防水")]
    assert merge(pieces) == product("卫衣", "不起球", "防水")
    assert merge([product("", "防水"), NO_PRODUCT]) == product("", "防水")


def test_chat_merges_to_no_product() -> None:
    assert merge([NO_PRODUCT, NO_PRODUCT]) == NO_PRODUCT


def test_merged_features_are_limited() -> None:
    words = [
        "软毛",
        "防水",
        "静音",
        "便携",
        "可充电",
        "三档",
        "美白",
        "低温",
        "竹炭",
        "儿童",
        "不锈钢",
        "大容量",
    ]
    merged = merge([product("牙刷", *words[:8]), product("牙刷", *words[8:])])
    assert merged.product_features == tuple(words[:MAX_FEATURES])
