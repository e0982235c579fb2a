import logging
import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import lance
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ampere.retrieval.filters import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_LITERALS,
    lance_condition,
    milvus_condition,
    parse_filter,
)

SCHEMA = pa.schema(
    [
        ("domain", pa.string()),
        ("price", pa.float64()),
        ("is_new", pa.bool_()),
        ("sold_at", pa.timestamp("us", tz="UTC")),
        ("tags", pa.list_(pa.field("element", pa.string()))),  # as Parquet names it
        ("价格", pa.float64()),
        ("my col", pa.string()),
        ("vector", pa.list_(pa.float32(), 4)),
        ("_score", pa.float64()),
        ("we`ird", pa.string()),
    ]
)
COLUMNS = (
    "domain (text), price (number), is_new (true/false), sold_at (time), tags (list of texts), "
    "价格 (number), my col (text)"
)
SUPPORTED = (
    "supported are =, !=, <>, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE, AND, OR, NOT, parentheses, "
    "array_has, array_has_any and array_has_all"
)
LITERAL = "expected a text in single quotes, a number, TRUE or FALSE"
TIME = "expected a time such as '2026-11-29' or '2026-11-29T08:30:00+08:00'"

# What was typed, the condition for Lance, and the condition for Milvus.
CONDITIONS = [
    ("domain = 'page'", "`domain` = 'page'", '(domain == "page")'),
    ("'page' = domain", "`domain` = 'page'", '(domain == "page")'),
    ("domain != 'a'", "`domain` != 'a'", '(domain is not null and domain != "a")'),
    ("domain <> 'a'", "`domain` != 'a'", '(domain is not null and domain != "a")'),
    ("price < 1e3", "`price` < 1000.0", "(price < 1000.0)"),
    ("price <= -5", "`price` <= -5.0", "(price <= -5.0)"),
    ("3 < price", "`price` > 3.0", "(price > 3.0)"),
    ("3 >= price", "`price` <= 3.0", "(price <= 3.0)"),
    ("price > 1.50", "`price` > 1.5", "(price > 1.5)"),
    ("price >= 0", "`price` >= 0.0", "(price >= 0.0)"),
    ("domain in ('page')", "`domain` in ('page')", '(domain in ["page"])'),
    (
        "domain NOT IN ('it''s', '价\"格')",
        "`domain` is not null and not (`domain` in ('it''s', '价\"格'))",
        '(domain is not null and not (domain in ["it\'s", "价\\"格"]))',
    ),
    (
        "price between 1 and 5 and domain = 'a'",
        "`price` between 1.0 and 5.0 and `domain` = 'a'",
        '(price >= 1.0 and price <= 5.0) and (domain == "a")',
    ),
    (
        "price not between 1 and 5",
        "`price` < 1.0 or `price` > 5.0",
        "(price < 1.0) or (price > 5.0)",
    ),
    ("domain is null", "`domain` is null", "(domain is null)"),
    ("tags IS NOT NULL", "(`tags` is not null)", "(tags is not null)"),
    ("not price is null", "(`price` is not null)", "(price is not null)"),
    ("domain like 'p%_'", "`domain` like 'p%_'", '(domain like "p%_")'),
    (
        "domain not like '%''%'",
        "`domain` is not null and not (`domain` like '%''%')",
        '(domain is not null and not (domain like "%\'%"))',
    ),
    ("is_new", "`is_new` = true", "(is_new == true)"),
    ("not is_new", "`is_new` = false", "(is_new == false)"),
    ("is_new != true", "`is_new` = false", "(is_new == false)"),
    ("is_new in (true, FALSE)", "`is_new` in (true, false)", "(is_new in [true, false])"),
    (
        "sold_at >= '2024-01-01'",
        "`sold_at` >= timestamp '2024-01-01 00:00:00.000000'",
        "(sold_at >= 1704067200000000)",
    ),
    (
        "sold_at in ('2024-01-01T08:00:00.5+08:00', '1969-12-31 23:59:59.999999Z')",
        "`sold_at` in (timestamp '2024-01-01 00:00:00.500000', "
        "timestamp '1969-12-31 23:59:59.999999')",
        "(sold_at in [1704067200500000, -1])",
    ),
    ("array_has(tags, 'x')", "array_has(`tags`, 'x')", '(array_contains(tags, "x"))'),
    (
        "array_has_any(tags, ['x', 'y'])",
        "array_has_any(`tags`, ['x', 'y'])",
        '(array_contains_any(tags, ["x", "y"]))',
    ),
    (
        "NOT Array_Has_All(tags, ['x'])",
        "`tags` is not null and not (array_has_all(`tags`, ['x']))",
        '(tags is not null and not (array_contains_all(tags, ["x"])))',
    ),
    (
        "not (price > 3 and (is_new or domain = 'a'))",
        "`price` <= 3.0 or `is_new` = false and `domain` != 'a'",
        '(price <= 3.0) or (is_new == false) and (domain is not null and domain != "a")',
    ),
    (
        "(price > 3 or is_new) and not not (domain = 'a')",
        "(`price` > 3.0 or `is_new` = true) and `domain` = 'a'",
        '((price > 3.0) or (is_new == true)) and (domain == "a")',
    ),
]


@pytest.mark.parametrize(("text", "for_lance", "for_milvus"), CONDITIONS)
def test_conditions_are_written_for_lance_and_milvus(
    text: str, for_lance: str, for_milvus: str
) -> None:
    condition = parse_filter(text, SCHEMA)
    assert lance_condition(condition) == for_lance
    assert milvus_condition(condition) == for_milvus


def test_names_of_columns_may_be_quoted_and_have_spaces_and_chinese() -> None:
    condition = parse_filter(
        "价格 < 3 and `价格` > 1 or \"my col\" = 'x' or `my col` = 'y'", SCHEMA
    )
    assert condition.columns == {"价格", "my col"}
    assert lance_condition(condition) == (
        "`价格` < 3.0 and `价格` > 1.0 or `my col` = 'x' or `my col` = 'y'"
    )


def test_equal_conditions_are_equal_and_can_be_keys() -> None:
    first, second = parse_filter("price > 3", SCHEMA), parse_filter("(3.0 < price)", SCHEMA)
    assert {first: 1}[second] == 1
    assert first != parse_filter("price >= 3", SCHEMA)


ERRORS = [
    # Columns.
    ("prise = 3", f"no column prise; there are {COLUMNS}"),
    ("Price = 3", f"no column Price; there are {COLUMNS}"),
    ("vector is null", f"no column vector; there are {COLUMNS}"),
    ("_score > 0.5", f"no column _score; there are {COLUMNS}"),
    ("`we``ird` = 'x'", f"no column we`ird; there are {COLUMNS}"),
    ("array_has(tag, 'x')", f"no column tag; there are {COLUMNS}"),
    # Types.
    ("price = 'cheap'", "price is a number; got the text 'cheap'"),
    ("price in (1, 'x')", "price is a number; got the text 'x'"),
    ("price between true and 3", "price is a number; got TRUE"),
    ("domain = 1000", "domain is a text; got the number 1000"),
    ("is_new = 'yes'", "is_new is true/false; got the text 'yes'"),
    ("is_new > false", "is_new is true/false, which has no order; compare it with = or !="),
    (
        "is_new between false and true",
        "is_new is true/false, which has no order; compare it with = or !=",
    ),
    ("sold_at > 20240101", f"sold_at is a time; got the number 2.02401e+07; {TIME}"),
    ("sold_at > 'yesterday'", f"sold_at is a time; got the text 'yesterday'; {TIME}"),
    ("sold_at > '2024-13-01'", f"sold_at is a time; got the text '2024-13-01'; {TIME}"),
    (
        "sold_at > '0001-01-01T00:00+14:00'",
        f"sold_at is a time; got the text '0001-01-01T00:00+14:00'; {TIME}",
    ),
    (
        "tags = 'x'",
        "tags is a list of texts; use array_has, array_has_any or array_has_all",
    ),
    ("array_has(tags, 3)", "tags is a list of texts; got the number 3"),
    ("array_has(domain, 'x')", "domain is a text; array_has needs a list of texts"),
    ("price like '1%'", "price is a number; LIKE needs a text"),
    ("domain", "domain is a text; only a true/false column stands alone"),
    ("price and is_new", "price is a number; only a true/false column stands alone"),
    (
        "price = 'a text of more than forty characters, cut'",
        "price is a number; got the text 'a text of more than forty characters, cu...'",
    ),
    # Literals.
    (
        "price = NULL",
        f"{LITERAL} at character 9, got NULL; test for missing values with IS NULL",
    ),
    ("price = NaN", f"{LITERAL} at character 9, got NaN"),
    ("price = -Infinity", f"arithmetic (-) is not supported; {SUPPORTED}"),
    ("price = 1e999", "1e999 is too large for a number"),
    ("price = -1e999", "-1e999 is too large for a number"),
    ("price = 1e", "1e is not a number"),
    ("price = .5", f"a dot outside of a number such as 0.5 is not supported; {SUPPORTED}"),
    ("domain = N'x'", f"{LITERAL} at character 10, got N'x'"),
    (
        'domain = "page"',
        f'{LITERAL} at character 10, got "page"; texts stand in single quotes, columns in double '
        "quotes",
    ),
    (
        r"domain like '\d'",
        r"LIKE with the text '\d': a backslash stands only before %, _ or another backslash",
    ),
    (
        "domain like 'a\\",
        "a quote has no end in domain like 'a\\",
    ),
    ("domain = '\ud800'", "no valid Unicode at character 11"),
    # Constructs.
    (
        "price > price",
        f"{LITERAL} at character 9, got price; a column is not compared with another column",
    ),
    ("1=1", "expected a column at character 3, got 1"),
    ("1=1; DROP TABLE x", f"more than one statement (;) is not supported; {SUPPORTED}"),
    ("domain = 'page' --", f"a comment is not supported; {SUPPORTED}"),
    ("domain /* x */ = 'page'", f"a comment is not supported; {SUPPORTED}"),
    ("{# x #} domain = 'page'", f"a comment is not supported; {SUPPORTED}"),
    ("EXISTS (SELECT 1)", f"EXISTS() is not supported; {SUPPORTED}"),
    ("repeat('a', 1000000000) = 'x'", f"repeat() is not supported; {SUPPORTED}"),
    ("lower(domain) = 'x'", f"lower() is not supported; {SUPPORTED}"),
    ("cast(price as text) = '1'", f"cast() is not supported; {SUPPORTED}"),
    ("price::text = '1'", f"a cast (::) is not supported; {SUPPORTED}"),
    ("price + 1 > 3", f"arithmetic (+) is not supported; {SUPPORTED}"),
    ("price > 3 - 1", f"arithmetic (-) is not supported; {SUPPORTED}"),
    ("price * 2 > 3", f"arithmetic (*) is not supported; {SUPPORTED}"),
    ("domain || 'x' = 'yx'", f"joining texts (||) is not supported; {SUPPORTED}"),
    ("price > (SELECT 1)", f"a subquery (SELECT) is not supported; {SUPPORTED}"),
    ("price IN (SELECT 1)", f"a subquery (SELECT) is not supported; {SUPPORTED}"),
    ("SELECT 1", f"no column SELECT; there are {COLUMNS}"),
    (
        "domain ILIKE 'x'",
        "expected =, !=, <>, <, <=, >, >=, IN, BETWEEN, IS or LIKE at character 8, got ILIKE",
    ),
    ("is_new is true", "expected NULL or NOT NULL at character 11, got true"),
    # Syntax.
    ("", f"there is no condition; {SUPPORTED}"),
    (" \n", f"there is no condition; {SUPPORTED}"),
    ("price", "price is a number; only a true/false column stands alone"),
    ("price >", f"{LITERAL} at the end, after price >"),
    ("price > 3 price", "expected AND, OR or the end at character 11, got price"),
    ("price > 3)", "expected AND, OR or the end at character 10, got )"),
    ("(price > 3", "expected AND, OR or ) at the end, after (price > 3"),
    ("price > 3 and", "expected a column, NOT or ( at the end, after price > 3 and"),
    ("价格 > 3 or or", "expected a column, NOT or ( at character 11, got or"),
    ("price == 3", f"{LITERAL} at character 8, got ="),
    (
        "price !< 3",
        "expected =, !=, <>, <, <=, >, >=, IN, BETWEEN, IS or LIKE at character 7, got !",
    ),
    ("! is_new", "expected a column, NOT or ( at character 1, got !"),
    ("3 price", "expected =, !=, <>, <, <=, > or >= at character 3, got price"),
    ("price between 1 or 3", "expected AND at character 17, got or"),
    ("domain in ()", f"{LITERAL} at character 12, got )"),
    ("domain in 'a'", "expected a list such as ('tea', 'coffee') at character 11, got 'a'"),
    ("domain in ('a' 'b')", "expected a comma or ) at character 16, got 'b'"),
    (
        "array_has_any(tags, 'x')",
        "expected a list such as ['new', 'sale'] at character 21, got 'x'",
    ),
    ("array_has_any(tags, [])", f"{LITERAL} at character 22, got ]"),
    ("array_has_any(tags, ['x')", "expected a comma or ] at character 25, got )"),
    ("array_has(tags)", "expected , at character 15, got )"),
    ("array_has(tags, 'x', 'y')", "expected ) at character 20, got ,"),
    ("domain = 'x", "a quote has no end in domain = 'x"),
    ('"domain', 'a quote has no end in "domain'),
    # Limits.
    ("x" * 10_001, "10,001 characters; the limit is 10,000"),
    (
        f"price in ({','.join('1' * 1_001)})",
        "too many literals; the limit is 1,000",
    ),
    (
        "(" * 51 + "is_new" + ")" * 51,
        "nested too deep; the limit is 50 levels of parentheses and NOT",
    ),
    ("not " * 51 + "is_new", "nested too deep; the limit is 50 levels of parentheses and NOT"),
    ("(" * 9_999, "nested too deep; the limit is 50 levels of parentheses and NOT"),
]


@pytest.mark.parametrize(("text", "message"), ERRORS, ids=range(len(ERRORS)))
def test_errors_say_what_came_and_what_is_there(
    text: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match="^filter: ") as error:
        parse_filter(text, SCHEMA)
    assert str(error.value) == f"filter: {message}"
    assert not caplog.records  # sqlglot logs some of what it cannot read


def test_a_table_without_columns_for_filters_says_so() -> None:
    with pytest.raises(ValueError, match="^filter: no column price; there are none$"):
        parse_filter("price > 3", pa.schema([("vector", pa.list_(pa.float32(), 4))]))


MILVUS_ERRORS = [
    ("domain = 'a\x00b'", r"Milvus has no control characters in a text; got 'a\x00b'"),
    (r"domain like '100\%'", r"Milvus has no backslash in a pattern of LIKE; got '100\%'"),
    *(
        (
            f"{quoted} = 1",
            f"Milvus cannot filter by the column {name}; expected ASCII letters, digits and "
            "underscores, and no word of its expressions. Rename the column",
        )
        for quoted, name in (("价格", "价格"), ("`my price`", "my price"), ("interval", "interval"))
    ),
]


@pytest.mark.parametrize(("text", "message"), MILVUS_ERRORS)
def test_what_milvus_lacks_is_an_error(text: str, message: str) -> None:
    numbers = [(name, pa.float64()) for name in ("价格", "my price", "interval")]
    condition = parse_filter(text, pa.schema([*numbers, ("domain", pa.string())]))
    with pytest.raises(ValueError, match="^filter: Milvus ") as error:
        milvus_condition(condition)
    assert str(error.value) == f"filter: {message}"


# The rest compares rows that Lance returns with a plain evaluation in Python, where None is SQL's
# null. Both the table and the same table with indexes, which have code of their own for nulls.

Row = dict[str, Any]
Evaluation = Callable[[Row], bool | None]

TEXTS = [
    *("page", "Page", "pag", "", "it's", '"q"', "a\\b", "a\\", "100%", "100", "a_b", "axb"),
    *("a.b", "[x]", "(.*)", "a\nb", "价格", "价", "價格😀", "\x00", "' or 1=1 --"),
]
NUMBERS = [0.0, -0.0, 1.0, -5.0, 0.1, 3.0, 1e3, 1e22, 1e-7, 9007199254740993.0, 1.7e308, 5e-324]
TIMES = [
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, 12, 30, 0, 123456, tzinfo=UTC),
    datetime(2024, 1, 1, 12, 30, 0, 123457, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
]
TAGS = [["new"], ["new", "sale"], [], ["it's", "价格"], ["new", None], [None], ["sale", "sale"]]


def _rows() -> list[Row]:
    """Every value of each column with others of the other columns, and nulls in each."""
    values = {
        "domain": [*TEXTS, None],
        "price": [*NUMBERS, None],
        "is_new": [True, False, None],
        "sold_at": [*TIMES, None],
        "tags": [*TAGS, None],
        "价格": [1.0, None, 2.0],
        "my col": ["x", "y", None, "z"],
    }
    return [{name: held[row % len(held)] for name, held in values.items()} for row in range(44)]


@pytest.fixture(scope="module", params=["plain", "indexed"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    schema = pa.schema([field for field in SCHEMA if field.name in _rows()[0]])
    uri = str(tmp_path_factory.mktemp("filters") / request.param)
    dataset = lance.write_dataset(pa.Table.from_pylist(_rows()[:30], schema), uri)
    if request.param == "indexed":
        for column, kind in (
            *(("domain", "BTREE"), ("price", "BTREE"), ("sold_at", "BTREE")),
            *(("is_new", "BITMAP"), ("tags", "LABEL_LIST"), ("my col", "BITMAP")),
        ):
            dataset.create_scalar_index(column, kind)
    return lance.write_dataset(pa.Table.from_pylist(_rows()[30:], schema), uri, mode="append")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _written(value: Any) -> str:
    if isinstance(value, datetime):
        return _quoted(value.isoformat())
    if isinstance(value, bool):
        return str(value)
    return _quoted(value) if isinstance(value, str) else repr(value)


def _matches(text: str, pattern: str) -> bool:
    """Whether a text matches a pattern of LIKE."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    wild = {"%": ".*", "_": "."}
    expression = "".join(wild.get(part) or re.escape(part[-1]) for part in parts)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _if_known(column: str, evaluation: Callable[[Any], bool]) -> Evaluation:
    return lambda row: None if row[column] is None else evaluation(row[column])


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _and(first: bool | None, second: bool | None) -> bool | None:
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


SIGNS = {
    **{"=": operator.eq, "!=": operator.ne, "<>": operator.ne},
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
}
ORDERED = {"domain": TEXTS, "price": NUMBERS, "sold_at": TIMES, "`my col`": ["x", "y", "yy"]}
NOTS = st.sampled_from([("", lambda value: value), ("NOT ", _not)])


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, Evaluation]:
    column = draw(st.sampled_from(list(ORDERED)))
    value = draw(st.sampled_from(ORDERED[column]))
    sign = draw(st.sampled_from(list(SIGNS)))
    name = column.strip("`")
    if draw(st.booleans()):
        mirrored = f"{_written(value)} {sign} {column}"
        return mirrored, _if_known(name, lambda held: SIGNS[sign](value, held))
    return f"{column} {sign} {_written(value)}", _if_known(
        name, lambda held: SIGNS[sign](held, value)
    )


@st.composite
def lists_and_ranges(draw: st.DrawFn) -> tuple[str, Evaluation]:
    column = draw(st.sampled_from(list(ORDERED)))
    values = draw(st.lists(st.sampled_from(ORDERED[column]), min_size=2, max_size=4))
    negation, negate = draw(NOTS)
    if draw(st.booleans()):
        text = f"{column} {negation}IN ({', '.join(map(_written, values))})"
        within = _if_known(column.strip("`"), lambda held: held in values)
    else:
        low, high = values[:2]
        text = f"{column} {negation}BETWEEN {_written(low)} AND {_written(high)}"
        within = _if_known(column.strip("`"), lambda held: low <= held <= high)
    return text, lambda row: negate(within(row))


@st.composite
def patterns(draw: st.DrawFn) -> tuple[str, Evaluation]:
    parts = [*"ab.%%%__10'", r"\%", r"\_", r"\\", "价", "(.*)", "[x]", "\n", "page"]
    pattern = "".join(draw(st.lists(st.sampled_from(parts), max_size=5)))
    negation, negate = draw(NOTS)
    matches = _if_known("domain", lambda held: _matches(held, pattern))
    return f"domain {negation}LIKE {_quoted(pattern)}", lambda row: negate(matches(row))


@st.composite
def lists_of_texts(draw: st.DrawFn) -> tuple[str, Evaluation]:
    wanted = draw(st.lists(st.sampled_from(["new", "sale", "it's", "价格", "?"]), min_size=1))
    listed = f"[{', '.join(map(_quoted, wanted))}]"
    text, holds = draw(
        st.sampled_from(
            [
                (f"array_has(tags, {_quoted(wanted[0])})", lambda held: wanted[0] in held),
                (f"array_has_any(tags, {listed})", lambda held: bool({*held} & {*wanted})),
                (f"array_has_all(tags, {listed})", lambda held: {*wanted} <= {*held}),
            ]
        )
    )
    return text, _if_known("tags", holds)


@st.composite
def nulls_and_booleans(draw: st.DrawFn) -> tuple[str, Evaluation]:
    column = draw(st.sampled_from(["domain", "price", "is_new", "sold_at", "tags", "价格"]))
    value = draw(st.booleans())
    return draw(
        st.sampled_from(
            [
                (f"{column} IS NULL", lambda row: row[column] is None),
                (f"{column} IS NOT NULL", lambda row: row[column] is not None),
                ("is_new", lambda row: row["is_new"]),
                (f"is_new = {value}", _if_known("is_new", lambda held: held is value)),
                (f"is_new != {value}", _if_known("is_new", lambda held: held is not value)),
                (f"is_new IN ({value})", _if_known("is_new", lambda held: held is value)),
            ]
        )
    )


def _compound(
    parts: st.SearchStrategy[tuple[str, Evaluation]],
) -> st.SearchStrategy[tuple[str, Evaluation]]:
    def both(pair: tuple[tuple[str, Evaluation], ...]) -> tuple[str, Evaluation]:
        (first, left), (second, right) = pair
        return f"({first} AND {second})", lambda row: _and(left(row), right(row))

    def either(pair: tuple[tuple[str, Evaluation], ...]) -> tuple[str, Evaluation]:
        (first, left), (second, right) = pair
        return f"({first} OR {second})", lambda row: _not(_and(_not(left(row)), _not(right(row))))

    pairs = st.tuples(parts, parts)
    negated = parts.map(lambda part: (f"NOT {part[0]}", lambda row: _not(part[1](row))))
    return pairs.map(both) | pairs.map(either) | negated


TREES = st.recursive(
    comparisons() | lists_and_ranges() | patterns() | lists_of_texts() | nulls_and_booleans(),
    _compound,
    max_leaves=8,
)


@given(tree=TREES)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_lance_returns_the_rows_for_which_a_condition_is_true(
    table: Any, tree: tuple[str, Evaluation]
) -> None:
    text, evaluation = tree
    condition = lance_condition(parse_filter(text, table.schema))
    scanned = table.scanner(columns=["domain"], filter=condition, with_row_id=True).to_table()
    expected = [number for number, row in enumerate(_rows()) if evaluation(row) is True]
    assert _numbers(scanned) == expected


def _numbers(scanned: pa.Table) -> list[int]:
    """Numbers of rows, from row addresses: the first fragment has 30 rows."""
    ids = scanned["_rowid"].to_pylist()
    return sorted((id_ >> 32) * 30 + (id_ & 0xFFFFFFFF) for id_ in ids)


PIECES = [
    *(
        "price",
        "domain",
        "is_new",
        "tags",
        "sold_at",
        "`my col`",
        "'page'",
        "'2024-01-01'",
        "3",
        "-",
    ),
    *("=", "<", "!=", "(", ")", "[", "]", ",", "AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL"),
    *(
        "LIKE",
        "TRUE",
        "array_has(",
        "array_has_any(tags, [",
        ".",
        ":",
        "'",
        '"',
        "--",
        "{",
        "!",
        ";",
    ),
]


@given(text=st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join) | st.text(max_size=30))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_is_refused_or_works(table: Any, text: str) -> None:
    try:
        condition = parse_filter(text, table.schema)
    except ValueError as error:
        if not str(error).startswith("filter: "):
            raise
    else:
        table.count_rows(filter=lance_condition(condition))


def test_lance_takes_no_null_for_a_value_outside_of_two_lists(table: Any) -> None:
    """Without `is not null`, Lance 14 takes two lists without common values for true."""
    wrong = "not (`domain` in ('page')) or not (`domain` in ('a'))"
    right = lance_condition(parse_filter("domain not in ('page') or domain not in ('a')", SCHEMA))
    nulls = table.count_rows(filter="domain is null")
    assert table.count_rows(filter=wrong) == len(_rows())  # else `is not null` can go
    assert table.count_rows(filter=right) == len(_rows()) - nulls < len(_rows())


def test_precedence_is_that_of_sql(table: Any) -> None:
    text = "price > 1 OR NOT is_new AND domain IN ('page', '价格') OR price = -5"
    written = lance_condition(parse_filter(text, table.schema))
    assert table.count_rows(filter=written) == table.count_rows(filter=text.replace("OR", "or"))


@pytest.mark.parametrize(
    "text",
    [
        "(" * MAX_DEPTH + "price = 1" + ")" * MAX_DEPTH,
        "not " * MAX_DEPTH + "price = 1",
        f"price in (1, {', '.join(['2e9'] * (MAX_LITERALS - 1))})",
        " or ".join(["price=1.0"] * (MAX_CHARACTERS // 13)),
    ],
    ids=["parentheses", "not", "list", "or"],
)
def test_the_largest_conditions_work(table: Any, text: str) -> None:
    condition = parse_filter(text, table.schema)
    assert table.count_rows(filter=lance_condition(condition)) == table.count_rows(
        filter="price = 1"
    )
    assert milvus_condition(condition) and hash(condition) and repr(condition)


def test_the_deepest_alternation_of_and_and_or_works(table: Any) -> None:
    text = "price = 1"
    for level in range(MAX_DEPTH):
        text = f"({text} {'and' if level % 2 else 'or'} domain is not null)"
    condition = lance_condition(parse_filter(text, table.schema))
    assert table.count_rows(filter=condition) == table.count_rows(filter="domain is not null")


def test_times_are_read_in_their_zone_and_in_utc_without_one(table: Any) -> None:
    for text in ("2024-01-01", "2024-01-01 00:00", "2024-01-01T08:00:00+08:00"):
        condition = lance_condition(parse_filter(f"sold_at = '{text}'", table.schema))
        held = table.scanner(columns=["sold_at"], filter=condition).to_table()["sold_at"]
        assert set(held.to_pylist()) == {TIMES[0]}


def test_milvus_times_are_microseconds_since_1970() -> None:
    for time in TIMES:
        condition = parse_filter(f"sold_at = '{time.isoformat()}'", SCHEMA)
        since = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        assert milvus_condition(condition) == f"(sold_at == {since})"
