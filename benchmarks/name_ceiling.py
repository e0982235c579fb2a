"""Upper bounds of name accuracy on the transcripts of the demo's generator.

    python benchmarks/name_ceiling.py [--products 20000]

A name is said two or three times, and each time each character may be misheard. A reader who finds
all mentions can take a majority vote per character; ties are broken at random. A reader who also
knows all words but the brands only needs one mention in which such a character is right. The
shipped language model is between the two.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence

from ampere.synthetic.products import demo_products
from ampere.synthetic.speech import homophones

MISHEARD = 0.03  # probability per character, as in `ampere.synthetic.speech.recognize`


def heard(name: str, rng: random.Random) -> str:
    """A name with homophones for the characters that are misheard."""
    same = homophones()
    return "".join(
        rng.choice(same[c]) if rng.random() < MISHEARD and same.get(c) else c for c in name
    )


def majority(characters: Sequence[str], rng: random.Random) -> str:
    """The most frequent character, a random one of several."""
    counts = Counter(characters)
    return rng.choice([c for c in counts if counts[c] == max(counts.values())])


def main() -> int:
    """Print both bounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--products", type=int, default=20_000)
    args = parser.parse_args()
    rng, by_vote, by_words = random.Random(0), 0, 0
    for i, product in enumerate(demo_products(rng, args.products)):
        mentions = [heard(product.name, rng) for _ in range((2, 3)[i % 2])]
        columns = list(zip(product.name, zip(*mentions, strict=True), strict=True))
        voted_right = [majority(column, rng) == character for character, column in columns]
        once_right = [character in column for character, column in columns]
        brand = len(product.brand)
        by_vote += all(voted_right)
        by_words += all(voted_right[:brand]) and all(once_right[brand:])
    print(f"by majority vote: {by_vote / args.products:.1%} of {args.products} names")
    print(f"with all words known but the brand: {by_words / args.products:.1%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
