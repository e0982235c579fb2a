"""Generated transcripts with known summaries, for scoring and benchmarking."""

import json
import random
from dataclasses import asdict

from ampere.synthetic.products import draw_brand, draw_product, load_categories
from ampere.synthetic.speech import chat, recognize, say
from ampere.text.summary import NO_PRODUCT, Summary


def held_out_examples(count: int) -> list[tuple[str, Summary]]:
    """Transcripts of the demo's generator, with their correct summaries.

    Their brands, selling points and sentence patterns are not in the small language model's
    training data.
    """
    rng = random.Random(0)
    examples = []
    for i in range(count):
        lines = (8, 16)[i % 2]
        if i % 10 == 9:
            examples.append((recognize(chat(rng, lines=lines), rng), NO_PRODUCT))
            continue
        product, other = (
            draw_product(rng, rng.choice(load_categories()), brand=draw_brand(rng, demo=True))
            for _ in range(2)
        )
        text = recognize(say(product, rng, lines=lines, other=other if i % 5 == 0 else None), rng)
        examples.append(
            (text, Summary(product_name=product.name, product_features=product.features))
        )
    return examples


def held_out_lines(count: int) -> str:
    """The held-out transcripts as JSON lines for `ampere evaluate-summaries --gold`."""
    rows = [
        {"sample_id": f"held-out-{i:03}", "domain": "live", "text": text} | asdict(truth)
        for i, (text, truth) in enumerate(held_out_examples(count))
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
