"""The training data of the bundled language model: varied, and disjoint from the demo."""

import random
import re

from rapidfuzz import fuzz, process

from ampere.synthetic import speech
from ampere.synthetic.products import is_demo_brand, load_categories
from ampere.text.checks.audit import SUPPORT, support
from ampere.text.checks.sounds import sounds
from ampere.text.summary import MAX_FEATURES
from tools.small_lm.corpus import (
    CorpusProduct,
    _feature_pattern,
    _single_mention_label,
    draw_corpus_product,
    draw_example,
    load_corpus_categories,
    load_talk,
)

PATTERNS = (
    "OPENERS",
    "CHATTER",
    "NAME_LINES",
    "PART_LINES",
    "FEATURE_LINES",
    "SIZE_LINES",
    "OTHER_LINES",
)


def test_corpus_has_no_line_selling_point_or_brand_of_the_demo() -> None:
    demo = {line for name in PATTERNS for line in getattr(speech, name)}
    assert not demo.intersection(line for lines in load_talk().values() for line in lines)
    held_out = {feature for category in load_categories() for feature in category.features}
    assert not held_out.intersection(
        feature for row in load_corpus_categories() for feature in row["features"]
    )
    rng = random.Random(0)
    brands = [draw_corpus_product(rng).words.get("brand") for _ in range(3000)]
    assert not any(is_demo_brand(brand) for brand in brands if brand and not brand.isascii())


def test_no_pattern_is_similar_to_one_of_the_demo() -> None:
    demo, learned = (
        sorted({re.sub(r"{\w+}", "_", line) for line in lines})
        for lines in (
            [line for name in PATTERNS for line in getattr(speech, name)],
            [
                line
                for kind, lines in load_talk().items()
                if kind != "fillers"
                for line in lines
                if len(line) > 4
            ],
        )
    )
    likeness = process.cdist(learned, demo, scorer=fuzz.ratio)
    assert likeness.shape > (20_000, 50) and likeness.max() < 90


def test_chatter_has_no_words_before_held_out_selling_points() -> None:
    leads = [line.partition("{")[0] for line in speech.FEATURE_LINES]
    assert all(line.endswith("{f}") for line in speech.FEATURE_LINES) and leads.count("而且") == 1
    chatter = [line for kind in ("chatter", "openers") for line in load_talk()[kind]]
    assert not [line for line in chatter if any(lead in line for lead in leads if len(lead) > 1)]


def test_a_third_of_selling_points_have_a_short_pattern() -> None:
    rng = random.Random(0)
    patterns = [_feature_pattern(rng) for _ in range(2000)]
    short = sum(bool(re.fullmatch(r".{1,5}{f}", pattern)) for pattern in patterns)
    assert 0.3 < short / len(patterns) < 0.5  # the written ones are a tenth


def test_words_before_some_selling_points_are_unknown() -> None:
    rng = random.Random(0)
    leads = {line.partition("{")[0] for line in load_talk()["features"]}
    unknown = [
        pattern
        for pattern in (_feature_pattern(rng) for _ in range(1000))
        if pattern.split("{")[0] not in leads
    ]
    assert 180 < len(unknown) < 260 and all(pattern.count("{f}") == 1 for pattern in unknown)


def test_label_of_a_single_mention_corrects_everyday_words_only() -> None:
    words = {"brand": "晨佳", "kind": "樱花", "noun": "耳机"}
    product = CorpusProduct(words, frozenset({"brand", "kind"}), features=(), size=None)
    assert (
        _single_mention_label(product, {"brand": "沉佳", "kind": "英花", "noun": "而机"})
        == "沉佳英花耳机"
    )
    rng = random.Random(0)
    drawn = [draw_corpus_product(rng) for _ in range(1000)]
    others = [
        part in product.arbitrary
        for product in drawn
        for part in product.words
        if part not in ("brand", "version")
    ]
    assert 0.17 < sum(others) / len(others) < 0.23 and all(
        "brand" in product.arbitrary for product in drawn
    )


def test_some_transcripts_are_captions() -> None:
    rng = random.Random(0)
    drawn = [draw_example(rng) for _ in range(1000)]
    captions = [summary for text, summary in drawn if len(text) < len(summary.text) + 4]
    assert 30 < len(captions) < 80 and all(summary.product_name for summary in captions)
    assert 0.3 < sum(not summary.product_features for summary in captions) / len(captions) < 0.7


def test_corpus_is_varied() -> None:
    talk = load_talk()
    assert (
        len(load_corpus_categories()) > 350
        and sum(len(row["features"]) for row in load_corpus_categories()) > 7000
    )
    assert (
        len(talk["names"]) > 2500 and len(talk["features"]) > 3000 and len(talk["chatter"]) > 8000
    )


def test_every_pattern_has_its_placeholders() -> None:
    slots = {
        "names": ["name"],
        "short_names": ["short"],
        "features": ["f"],
        "feature_pairs": ["f", "g"],
    }
    slots |= {"sizes": ["f"], "others": ["name"], "slips": ["wrong", "name"]}
    for kind, wanted in slots.items():
        assert all(
            sorted(re.findall(r"{(\w+)}", line)) == sorted(wanted) for line in load_talk()[kind]
        ), kind
    assert not any(
        "{" in line for kind in ("openers", "chatter", "fillers") for line in load_talk()[kind]
    )


def test_summary_is_in_the_transcript_in_order() -> None:
    rng = random.Random(0)
    chats = moved = 0
    for _ in range(400):
        transcript, summary = draw_example(rng)
        if not summary.text:
            chats += 1
            continue
        assert len(summary.product_features) <= MAX_FEATURES
        heard = sounds(transcript)
        # A stutter may split a phrase in two; more is never lost.
        phrases = [p for p in (summary.product_name, *summary.product_features) if p]
        assert all(support(sounds(phrase), heard) >= SUPPORT / 2 for phrase in phrases)
        places = [transcript.find(feature) for feature in summary.product_features]
        known = [place for place in places if place >= 0]
        moved += known != sorted(known)
    assert moved <= 4  # a stutter may break the first of two mentions
    assert 35 < chats < 80  # one in seven


def test_draws_depend_on_the_seed_only() -> None:
    one, other = random.Random(7), random.Random(7)
    assert [draw_example(one) for _ in range(20)] == [draw_example(other) for _ in range(20)]
