"""`ampere report coverage`: products without a short, near duplicates, likely wrong product ids."""

import json
from dataclasses import asdict

from ampere.reports.text_table import new_table, render_table
from ampere.store.coverage import Coverage

PRODUCT = {True: "the same", False: "another", None: "unknown"}  # of two near duplicates


def coverage_json(coverage: Coverage) -> str:
    """All of it as JSON."""
    fields = asdict(coverage)
    del fields["examples"]
    return json.dumps(fields, ensure_ascii=False, indent=2)


def format_coverage(coverage: Coverage, limit: int) -> str:
    """Counts, and the first samples and products of each kind.

    Args:
        coverage: what was found.
        limit: rows of each kind.
    """
    lines = [f"{coverage.samples} samples of {coverage.products} products"]
    for domain, products in coverage.missing.items():
        names = ", ".join([*products[:limit], *(["..."] if len(products) > limit else [])])
        lines.append(f"products without a {domain}: {len(products)}{names and f' ({names})'}")
    lines.append(f"near duplicates: {len(coverage.duplicates)} pairs")
    if coverage.duplicates:
        table = new_table("first", "second", "product", right=("similarity",))
        for pair in coverage.duplicates[:limit]:
            product = PRODUCT[pair.same_product]
            table.add_row(pair.first, pair.second, product, f"{pair.similarity:.4f}")
        lines.append(render_table(table))
    lines.append(f"likely wrong product_id: {len(coverage.doubtful)} samples")
    if coverage.doubtful:
        table = new_table("sample", "product", "neighbors' product", right=("similarity",))
        for sample in coverage.doubtful[:limit]:
            table.add_row(
                sample.sample_id,
                sample.product_id,
                sample.neighbors_product,
                f"{sample.similarity:.4f}",
            )
        lines.append(render_table(table))
    return "\n".join(lines)
