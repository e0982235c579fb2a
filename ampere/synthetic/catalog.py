"""The generated catalogue: pages, short videos and live clips of invented products, written as a user's files lie.

`write_demo_catalogue(folder)` writes pages/, shorts/, lives/ and manifest.csv; gold.jsonl beside them holds the truth
of every transcript, which only the judging of summaries reads. Products are drawn in worker processes, each from a
random source of its own (seed and product number), so the files do not depend on the number of workers. The manifest
comes last: a folder that has one is complete, and a run that was killed is repeated as a whole.
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

from ampere.records import Domain, Split
from ampere.synthetic.clip_file import encode_clip
from ampere.synthetic.looks import draw_look
from ampere.synthetic.products import DEMO_CATEGORIES, Product, demo_products
from ampere.synthetic.scenes import clip_frames, page_image
from ampere.synthetic.speech import chat, recognise, say

FORMAT = 4  # of the drawing and the words; raised when the same arguments give another catalogue
FPS = 8
COLUMNS = ("sample_id", "product_id", "domain", "split", "text", "media", "category")
LINES = {Domain.SHORT: 8, Domain.LIVE: 16}
FRAMES = {Domain.SHORT: (24, 32), Domain.LIVE: (36, 48)}
CHAT_ONLY, NO_TEXT, MENTIONS_OTHER, SILENT = 0.03, 0.02, 0.15, 0.3  # chances per clip
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
Written = tuple[
    Row, Truth | None
]  # a row of the manifest; for a clip with text, the truth about it


@dataclass(frozen=True, kw_only=True)
class Item:
    """A product of the catalogue, and what a worker needs to know of the others."""

    index: int
    product: Product
    split: Split
    group: str
    """Names the look-alikes; see `scenes.draw_look`."""
    other: Product
    """A product of the same split that the seller may mention in passing."""


Job = tuple[Path, int, dict[Domain, int], Item]  # folder, seed, samples per domain, product


def plan_catalogue(products: int, seed: int) -> list[Item]:
    """Draw the products, a quarter of each category for the test, and their groups of look-alikes.

    Groups lie inside a split, so the test products are as hard to tell apart as the training products.

    Raises:
        ValueError: there are too few products for a training and a test product in each category.
    """
    if products < 2 * DEMO_CATEGORIES:
        raise ValueError(
            f"products is {products}; the demo needs at least {2 * DEMO_CATEGORIES}, two per category"
        )
    rng = random.Random(f"{seed}/plan")
    drawn = list(demo_products(rng, products))
    placed: dict[int, tuple[Split, str]] = {}
    for category in range(DEMO_CATEGORIES):
        members = range(
            category, products, DEMO_CATEGORIES
        )  # demo_products goes round the categories
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
        items.append(Item(index=index, product=product, split=split, group=group, other=other))
    return items


def write_title(product: Product, rng: random.Random) -> str:
    """A page's title: the name, the size and one or two features, and shop words, in some order."""
    size, *features = product.features
    facts = [product.name, size, *rng.sample(features, k=rng.choice((1, 2)))]
    rng.shuffle(facts)
    first, *rest = rng.sample(SHOP_WORDS, k=rng.choice((1, 2, 3)))
    return rng.choice((" ", "", " ")).join([first, *facts, *rest])


def write_transcript(item: Item, domain: Domain, rng: random.Random) -> tuple[str, Truth | None]:
    """A clip's transcript, and the truth about it: name and features; empty for chat; None where there is no text."""
    kind = rng.random()
    if kind < NO_TEXT:
        return "", None
    if kind < NO_TEXT + CHAT_ONLY:
        return recognise(chat(rng, lines=LINES[domain]), rng), {
            "product_name": "",
            "product_features": [],
        }
    other = item.other if rng.random() < MENTIONS_OTHER else None
    text = recognise(say(item.product, rng, lines=LINES[domain], other=other), rng)
    return text, {
        "product_name": item.product.name,
        "product_features": list(item.product.features),
    }


def _write_sample(folder: Path, seed: int, item: Item, domain: Domain, number: int) -> Written:
    """Draw the words and the picture of one page or clip, and write its file."""
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
    """Everything of one product; a worker's unit of work."""
    folder, seed, counts, item = job
    return [
        _write_sample(folder, seed, item, domain, number)
        for domain, count in counts.items()
        for number in range(count)
    ]


def _write_products(jobs: Sequence[Job], workers: int) -> Iterator[list[Written]]:
    """Do all jobs; the results come in the order of the jobs."""
    if workers == 1:
        yield from map(_write_product, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_write_product, jobs, chunksize=4)


def _replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8", newline="")
    unfinished.replace(path)


def _claim_folder(folder: Path, arguments: Truth) -> None:
    """Note the arguments in catalogue.json, or check that those of an earlier run are the same."""
    note = folder / "catalogue.json"
    if note.exists():
        earlier = json.loads(note.read_text(encoding="utf-8"))
        if earlier != arguments:
            raise ValueError(
                f"{folder} holds a demo catalogue made with {earlier}, but {arguments} was asked for; "
                "remove the folder or choose another"
            )
    elif (folder / "manifest.csv").exists():
        raise ValueError(
            f"{folder} holds a manifest.csv that is not the demo's; choose another folder"
        )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _replace_text(note, json.dumps(arguments, indent=2) + "\n")


def write_demo_catalogue(
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
    """Write the demo catalogue, unless the folder already holds it.

    Args:
        folder: made if missing.
        products: how many products, at least 20.
        seed: another seed gives another catalogue.
        pages_per_product: samples of each product in this domain, as in the next two.
        workers: worker processes, None for one per core; 1 draws in this process. More are spawned, so a script
            that asks for them needs the usual `if __name__ == "__main__"`.
        on_progress: called with the number of products written and of all products.

    Returns:
        The path of manifest.csv; its media are relative to the folder.

    Raises:
        ValueError: too few products, or the folder holds a catalogue made with other arguments.
    """
    counts = {
        Domain.PAGE: pages_per_product,
        Domain.SHORT: shorts_per_product,
        Domain.LIVE: lives_per_product,
    }
    per_product = {str(domain): count for domain, count in counts.items()}
    items = plan_catalogue(products, seed)
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
