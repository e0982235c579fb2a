"""How many names of the demo's generator can be known from its transcripts at all.

    python benchmarks/name_ceiling.py [--products 20000]

A name is said two or three times, and each character may be misheard each time. Whoever finds all mentions can let them
vote, character by character; a tie is broken by chance. Whoever besides knows all words that are no brand needs one
mention in which such a character is right. The shipped language model stands between the two.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence

from ampere.synthetic.products import demo_products
from ampere.synthetic.speech import homophones

MISHEARD = 0.03  # of the characters, as in `ampere.synthetic.speech.recognize`


def heard(name: str, rng: random.Random) -> str:
    same = homophones()
    return "".join(
        rng.choice(same[c]) if rng.random() < MISHEARD and same.get(c) else c for c in name
    )


def voted(characters: Sequence[str], rng: random.Random) -> str:
    """The commonest character; one of them by chance where several are."""
    counts = Counter(characters)
    return rng.choice([c for c in counts if counts[c] == max(counts.values())])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--products", type=int, default=20_000)
    args = parser.parse_args()
    rng, by_vote, by_words = random.Random(0), 0, 0
    for i, product in enumerate(demo_products(rng, args.products)):
        columns = list(zip(*(heard(product.name, rng) for _ in range((2, 3)[i % 2])), strict=True))
        right = [voted(column, rng) == c for column, c in zip(columns, product.name, strict=True)]
        found = [c in column for column, c in zip(columns, product.name, strict=True)]
        brand = len(product.brand)
        by_vote += all(right)
        by_words += all(right[:brand]) and all(found[brand:])
    print(f"by vote alone: {by_vote / args.products:.1%} of {args.products} names")
    print(f"all words known but the brand: {by_words / args.products:.1%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
