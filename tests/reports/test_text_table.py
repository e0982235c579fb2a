"""Tables for terminals and pipes: columns line up, and nothing in a cell is cut or interpreted."""

from ampere.records import Domain
from ampere.reports.search import format_hits
from ampere.reports.text_table import new_table, render_table
from ampere.retrieval.search import Hit, SearchAnswer


def test_long_cells_are_neither_cut_nor_wrapped() -> None:
    path = "/media/" + "clip " * 100 + "云岚" * 100
    table = new_table("stage", right=("done",))
    table.add_row(path, "7")
    head, row = render_table(table).splitlines()
    assert row == f"{path}     7"
    assert head.split() == ["stage", "done"]


def test_markup_and_emoji_codes_in_ids_are_text() -> None:
    table = new_table("sample")
    table.add_row("[bold]a[/bold]:smile:")
    assert render_table(table).splitlines()[1] == "[bold]a[/bold]:smile:"


def test_numbers_are_right_aligned_under_their_head() -> None:
    table = new_table("stage", right=("done", "pending"))
    table.add_row("decode", "5", "1200")
    assert render_table(table).splitlines() == ["stage   done  pending", "decode     5     1200"]


def hit(sample: str, product: str | None, text: str | None) -> Hit:
    return Hit(
        sample_id=sample,
        product_id=product,
        domain=Domain.PAGE,
        score=0.98765,
        text=text,
        media_uri=None,
    )


def test_hits_are_one_line_each_with_whole_ids() -> None:
    long_id = "s" * 200
    hits = {
        Domain.PAGE: [hit(long_id, "p1", "云岚\n洗发水"), hit("b", None, None)],
        Domain.LIVE: [hit("c", "p1", "x" * 99)],
    }
    facets: dict[str, dict[str, int]] = {"category": {"soap": 2, "tea": 1}, "shop": {}}
    *lines, category, shop = format_hits(SearchAnswer(hits, facets, "vector", 1)).splitlines()
    assert (category, shop) == ("category: soap 2, tea 1", "shop: no values")
    assert lines[0].split() == ["domain", "score", "product", "sample", "text"]
    assert [line.split() for line in lines[1:]] == [
        ["page", "0.988", "p1", long_id, "云岚", "洗发水"],
        ["page", "0.988", "-", "b"],
        ["live", "0.988", "p1", "c", "x" * 40],
    ]
