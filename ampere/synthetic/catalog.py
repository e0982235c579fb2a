"""The demo catalog: generated pages, short videos and live clips of invented products.

`write_demo_catalog(folder)` writes pages/, shorts/, lives/ and manifest.csv, as a user's catalog
would be. gold.jsonl has the correct name and features for every transcript; only the evaluation of
summaries reads it. Products are drawn in worker processes, each with a random generator of its own
(by seed and product number), so the files do not depend on the number of workers. The manifest is
written last: a folder with a manifest is complete, and an interrupted run is repeated as a whole.
"""

import csv
import io
import json
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ampere.interrupts import children_without_interrupts, end_with_parent
from ampere.records import Domain, Split
from ampere.synthetic.clip_file import encode_clip
from ampere.synthetic.looks import draw_look
from ampere.synthetic.products import DEMO_CATEGORIES, Product, demo_products
from ampere.synthetic.scenes import clip_frames, page_image
from ampere.synthetic.speech import chat, recognize, say

FORMAT = 4  # version of pictures and texts; raised when equal arguments give another catalog
FPS = 8
COLUMNS = ("sample_id", "product_id", "domain", "split", "text", "media", "category")
LINES = {Domain.SHORT: 8, Domain.LIVE: 16}
FRAMES = {Domain.SHORT: (24, 32), Domain.LIVE: (36, 48)}
CHAT_ONLY, NO_TEXT, MENTIONS_OTHER, SILENT = 0.03, 0.02, 0.15, 0.3  # probabilities per clip
SHOP_WORDS = (
    "官方旗舰店",
    "新款",
    "正品",
    "包邮",
    "厂家直发",
    "热卖",
    "限时特价",
    "送运费险",
    "当天发货",
    "爆款",
)

Row = dict[str, str]
Truth = dict[str, object]
# A row of the manifest, and for a clip with text its correct summary.
Written = tuple[Row, Truth | None]


@dataclass(frozen=True, kw_only=True)
class PlannedProduct:
    """A product of the catalog, with what a worker needs to draw it.

    Attributes:
        index: its number, from 0.
        product: its name and features.
        split: of all its samples.
        group: name of its group of look-alikes; see `looks.draw_look`.
        other: a product of the same split that the seller may mention in passing.
    """

    index: int
    product: Product
    split: Split
    group: str
    other: Product


# Folder, seed, number of samples per domain, product.
Job = tuple[Path, int, dict[Domain, int], PlannedProduct]


def plan_catalog(products: int, seed: int) -> list[PlannedProduct]:
    """Draw the products, their splits (a quarter of each category for the test) and look-alikes.

    Groups of look-alikes are within a split, so the test products are as hard to distinguish as the
    training products.

    Raises:
        ValueError: too few products for a training and a test product in each category.
    """
    if products < 2 * DEMO_CATEGORIES:
        expected = f"at least {2 * DEMO_CATEGORIES}, two per category"
        raise ValueError(f"too few products: {products}; expected {expected}")
    rng = random.Random(f"{seed}/plan")
    drawn = list(demo_products(rng, products))
    placed: dict[int, tuple[Split, str]] = {}
    for category in range(DEMO_CATEGORIES):
        members = range(category, products, DEMO_CATEGORIES)  # demo_products is round-robin
        num_test = max(1, round(len(members) / 4))
        for split, part in ((Split.TEST, members[:num_test]), (Split.TRAIN, members[num_test:])):
            num_groups = max(1, round(len(part) / 3.5))
            for number, index in enumerate(part):
                placed[index] = (split, f"{seed}/{split}/{number % num_groups}")
    pools = {split: [drawn[i] for i in placed if placed[i][0] is split] for split in Split}
    items = []
    for index, product in enumerate(drawn):
        split, group = placed[index]
        other = next(p for p in rng.sample(pools[split], k=2) if p is not product)
        items.append(
            PlannedProduct(index=index, product=product, split=split, group=group, other=other)
        )
    return items


def write_title(product: Product, rng: random.Random) -> str:
    """Draw a page's title: name, size, one or two features and shop words in random order."""
    size, *features = product.features
    facts = [product.name, size, *rng.sample(features, k=rng.choice((1, 2)))]
    rng.shuffle(facts)
    first, *rest = rng.sample(SHOP_WORDS, k=rng.choice((1, 2, 3)))
    return rng.choice((" ", "", " ")).join([first, *facts, *rest])


def write_transcript(
    item: PlannedProduct, domain: Domain, rng: random.Random
) -> tuple[str, Truth | None]:
    """Draw a clip's transcript, and its correct name and features.

    Both are empty for a clip of chat; without text the second value is None.
    """
    kind = rng.random()
    if kind < NO_TEXT:
        return "", None
    if kind < NO_TEXT + CHAT_ONLY:
        return recognize(chat(rng, lines=LINES[domain]), rng), {
            "product_name": "",
            "product_features": [],
        }
    other = item.other if rng.random() < MENTIONS_OTHER else None
    text = recognize(say(item.product, rng, lines=LINES[domain], other=other), rng)
    return text, {
        "product_name": item.product.name,
        "product_features": list(item.product.features),
    }


def _write_sample(
    folder: Path, seed: int, item: PlannedProduct, domain: Domain, number: int
) -> Written:
    """Draw the text and the picture of one page or clip, and write its media file."""
    product_id = f"p{item.index:05d}"
    sample_id = f"{product_id}-{domain}-{number}"
    media = f"{domain}s/{product_id}-{number}." + ("jpg" if domain is Domain.PAGE else "mp4")
    look = draw_look(item.product, item.group, random.Random(f"{seed}/{product_id}"))
    rng = random.Random(f"{seed}/{sample_id}")
    truth = None
    if domain is Domain.PAGE:
        text = write_title(item.product, rng)
        page_image(look, rng).save(folder / media, quality=90)
    else:
        text, truth = write_transcript(item, domain, rng)
        tone_hz = None if rng.random() < SILENT else rng.uniform(150, 600)
        frames = clip_frames(look, rng, domain, rng.randint(*FRAMES[domain]))
        encode_clip(folder / media, frames, FPS, tone_hz)
    values = (
        sample_id,
        product_id,
        str(domain),
        str(item.split),
        text,
        media,
        item.product.category.category,
    )
    return dict(zip(COLUMNS, values, strict=True)), truth and {"sample_id": sample_id} | truth


def _write_product(job: Job) -> list[Written]:
    """Write all samples of one product; a worker's unit of work."""
    folder, seed, counts, item = job
    return [
        _write_sample(folder, seed, item, domain, number)
        for domain, count in counts.items()
        for number in range(count)
    ]


def _write_products(jobs: Sequence[Job], workers: int) -> Iterator[list[Written]]:
    """Run all jobs; yields the results in the order of the jobs."""
    if workers == 1:
        yield from map(_write_product, jobs)
        return
    # Of the process that removes the pool's semaphores, after a command that a signal ended.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    )
    try:
        with children_without_interrupts():
            written = pool.map(_write_product, jobs, chunksize=4)
        yield from written
    finally:
        pool.shutdown(cancel_futures=True)


def _replace_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8", newline="")
    unfinished.replace(path)


def _claim_folder(folder: Path, arguments: Truth) -> None:
    """Record the arguments in catalog.json, or check that an earlier run had the same."""
    note = folder / "catalog.json"
    if note.exists():
        earlier = json.loads(note.read_text(encoding="utf-8"))
        if earlier != arguments:
            raise ValueError(
                f"{folder} has a demo catalog made with {earlier}; expected {arguments}. "
                "Remove the folder or choose another."
            )
    elif (folder / "manifest.csv").exists():
        raise ValueError(
            f"{folder} has a manifest.csv that is not the demo's. Choose another folder."
        )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _replace_text(note, json.dumps(arguments, indent=2) + "\n")


def write_demo_catalog(
    folder: Path,
    *,
    products: int = 200,
    seed: int = 0,
    pages_per_product: int = 1,
    shorts_per_product: int = 2,
    lives_per_product: int = 2,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the demo catalog, unless the folder already has it.

    Args:
        folder: created if missing.
        products: number of products, at least 20.
        seed: another seed gives another catalog.
        pages_per_product: page samples of each product.
        shorts_per_product: short samples of each product.
        lives_per_product: live samples of each product.
        workers: worker processes; None means one per core, and 1 draws in this process. Workers are
            spawned, so a script that uses them needs the usual `if __name__ == "__main__"`.
        on_progress: called with the numbers of finished and of all products.

    Returns:
        The path of manifest.csv, whose media paths are relative to the folder.

    Raises:
        ValueError: too few products, or the folder has a catalog made with other arguments.
    """
    counts = {
        Domain.PAGE: pages_per_product,
        Domain.SHORT: shorts_per_product,
        Domain.LIVE: lives_per_product,
    }
    per_product = {str(domain): count for domain, count in counts.items()}
    items = plan_catalog(products, seed)
    _claim_folder(
        folder, {"format": FORMAT, "products": products, "seed": seed, "per_product": per_product}
    )
    manifest = folder / "manifest.csv"
    if manifest.exists():
        return manifest
    for domain in counts:
        (folder / f"{domain}s").mkdir(exist_ok=True)
    written: list[Written] = []
    jobs = [(folder, seed, counts, item) for item in items]
    for done, samples in enumerate(_write_products(jobs, workers or os.cpu_count() or 1), start=1):
        written += samples
        if on_progress is not None:
            on_progress(done, products)
    gold = [json.dumps(truth, ensure_ascii=False) + "\n" for _, truth in written if truth]
    _replace_text(folder / "gold.jsonl", "".join(gold))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for row, _ in written)
    _replace_text(manifest, table.getvalue())
    return manifest
