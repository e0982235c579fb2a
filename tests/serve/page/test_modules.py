"""The page's pure modules, in a browser without an endpoint."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from playwright.sync_api import Browser, Page

import serve
from ampere.retrieval.filters import lance_condition, parse_filter
from serve.messages import MESSAGES
from tests.helpers.browser import opened

FOLDER = Path(serve.__file__).parent / "page"
SITE = "http://page.test"
SCHEMA = pa.schema(
    {
        "category": pa.string(),
        'a "b" c': pa.string(),
        "price": pa.float64(),
        "is_new": pa.bool_(),
        "listed": pa.timestamp("us", tz="UTC"),
        "tags": pa.list_(pa.string()),
    }
)
TYPES = dict(
    zip(
        SCHEMA.names, ["string", "string", "number", "boolean", "timestamp", "strings"], strict=True
    )
)


@pytest.fixture(scope="module")
def modules(browser: Browser) -> Iterator[Page]:
    """A blank page that can import the modules."""
    with opened(browser, SITE, timezone_id="Asia/Shanghai") as page:
        page.route(
            "**/page/*", lambda route: route.fulfill(path=FOLDER / route.request.url.split("/")[-1])
        )
        page.route(f"{SITE}/", lambda route: route.fulfill(body="", content_type="text/html"))
        page.goto("/")
        yield page


def call(modules: Page, module: str, function: str, *arguments: object) -> object:
    return modules.evaluate(
        f"async given => (await import('/page/{module}.js')).{function}(...given)", list(arguments)
    )


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (["category", "=", "it's \\ 茶"], "`category` = 'it''s \\ 茶'"),
        (["category", "!=", "tea"], "`category` != 'tea'"),
        (["category", "contains", "5%_\\'"], "`category` like '%5\\%\\_\\\\''%'"),
        (["category", "in", "tea, 茶，coffee"], "`category` in ('tea', '茶', 'coffee')"),
        (["category", "missing"], "`category` is null"),
        (['a "b" c', "=", "x"], "`a \"b\" c` = 'x'"),
        (["price", "<=", "1,200.5"], "`price` <= 1200.5"),
        (["price", "between", "-1", "2e3"], "`price` between -1.0 and 2000.0"),
        (["is_new", "false"], "`is_new` = false"),
        (
            ["listed", "since", "2026-11-29T08:30"],
            "`listed` >= timestamp '2026-11-29 00:30:00.000000'",
        ),
        (["tags", "has", "sale"], "array_has(`tags`, 'sale')"),
        (["tags", "has-any", "a,b"], "array_has_any(`tags`, ['a', 'b'])"),
        (["tags", "has-all", "a"], "array_has_all(`tags`, ['a'])"),
        (["tags", "present"], "(`tags` is not null)"),
    ],
)
def test_condition_is_sql_that_the_endpoint_reads(
    modules: Page, condition: list[str], expected: str
) -> None:
    sql = call(modules, "sql", "conditionSql", TYPES[condition[0]], condition)
    assert lance_condition(parse_filter(sql, SCHEMA)) == expected


@pytest.mark.parametrize(
    "condition",
    [
        ["category", "=", " "],
        ["price", "<", "much"],
        ["price", "<", "1,5"],
        ["price", "between", "1", ""],
        ["listed", "since", ""],
    ],
)
def test_incomplete_condition_is_left_out(modules: Page, condition: list[str]) -> None:
    assert call(modules, "sql", "conditionSql", TYPES[condition[0]], condition) is None


def test_own_sql_is_combined_with_the_conditions(modules: Page) -> None:
    sql = modules.evaluate(
        """async types => (await import('/page/sql.js')).filterSql(
            [["price", "<", "5"]], "is_new OR price > 9", new Map(Object.entries(types)))""",
        TYPES,
    )
    assert sql == '"price" < 5 AND (is_new OR price > 9)'


def test_link_holds_the_whole_search(modules: Page) -> None:
    ask = {
        "text": "a&b #茶 %", "sample": "x/y?z", "file": "clip 1.mp4", "sql": "price < 3",
        "conditions": [["price", "between", "1", "2"], ['a "b" c', "=", "&="]],
        "domains": ["page", "live"], "group": False, "k": 24,
        "sides": [{"model": "ampere", "mode": "vector"}, {"model": "", "mode": "hybrid"}],
    }  # fmt: skip
    link = call(modules, "link", "linkOf", ask)
    assert call(modules, "link", "askOf", link) == ask


@pytest.mark.parametrize(
    "link", ["#/search?k=9999&mode=x&domains=moon", "#/search?where=[1]&where={&k=-3", "#x?y?z"]
)
def test_link_with_invalid_values_is_read(modules: Page, link: str) -> None:
    ask = call(modules, "link", "askOf", link)
    assert 1 <= ask["k"] <= 100 and ask["conditions"] == []
    assert ask["sides"] == [{"model": "", "mode": "auto"}]


@pytest.mark.parametrize("size", [0, 3, 55, 56, 63, 64, 65, 1000])
def test_sha256_without_the_browsers_own(modules: Page, size: int) -> None:
    data = bytes(i * 7 % 256 for i in range(size))
    digest = modules.evaluate(
        """async bytes => Array.from(
            (await import('/page/sha256.js')).plainSha256(new Uint8Array(bytes)))""",
        list(data),
    )
    assert bytes(digest) == hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("薄荷洗发乳 Nike", ["洗发", "洗发乳", "nike"], ["洗发乳", "Nike"]),
        ("tea steam TEA.", ["tea"], ["tea", "TEA"]),
        ("c++ ( x) a.b", ["c++", "a.b", "("], ["c++", "(", "a.b"]),
        ("plain", [], []),
    ],
)
def test_words_are_marked(modules: Page, text: str, words: list[str], expected: list[str]) -> None:
    marked = modules.evaluate(
        """async ([text, words]) => {
            const box = document.createElement("p");
            box.append(...(await import('/page/marks.js')).marked(text, words));
            const marks = [...box.querySelectorAll("mark")].map(mark => mark.textContent);
            return [box.textContent, marks];
        }""",
        [text, words],
    )
    assert marked == [text, expected]


def test_both_languages_have_the_same_messages(modules: Page) -> None:
    en, zh = (
        modules.evaluate(f"async () => (await import('/page/{name}.js')).default")
        for name in ("en", "zh")
    )
    assert en.keys() == zh.keys()
    for key in en:
        assert set(re.findall(r"{\w+}", en[key])) == set(re.findall(r"{\w+}", zh[key])), key


def test_all_that_the_endpoint_says_is_translated(modules: Page) -> None:
    said = modules.evaluate("async () => (await import('/page/said_zh.js')).default")
    of_fields = {code: text for code, text in said.items() if code.startswith("field.")}
    assert said.keys() - of_fields.keys() == MESSAGES.keys() - {"field.invalid"}
    for code in MESSAGES.keys() - {"field.invalid"}:
        assert set(re.findall(r"{\w+}", said[code])) == set(re.findall(r"{\w+}", MESSAGES[code]))


def test_sentence_without_a_translation_is_shown_as_it_is(modules: Page) -> None:
    sentences = modules.evaluate(
        """async () => {
            const { said, switchLanguage } = await import('/page/i18n.js');
            const texts = () => [
                said({ code: "busy", values: { limit: 8 } }, "the English one"),
                said({ code: "of.a.newer.endpoint", values: {} }, "the English one"),
                said({}, "no code"),
            ];
            const english = texts();
            switchLanguage();
            const chinese = texts();
            switchLanguage();
            return [english, chinese];
        }"""
    )
    assert sentences[0] == ["the English one", "the English one", "no code"]
    assert "8 个请求" in sentences[1][0] and sentences[1][1:] == sentences[0][1:]


def test_modules_are_preloaded_and_write_no_html_and_no_styles() -> None:
    """Data would become code, and the content policy refuses styles in elements."""
    for path in FOLDER.glob("*.js"):
        source = path.read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", source), (
            path
        )
        assert not re.search(r"\"style\"|eval\(|new Function", source), path
    page = (FOLDER / "index.html").read_text("utf-8")
    preloaded = set(re.findall(r"modulepreload\" href=\"/page/([\w.]+)", page))
    assert preloaded | {"main.js"} == {path.name for path in FOLDER.glob("*.js")}
    assert not re.search(r"<style|style=|<script(?! type=\"module\" src=\")|\bon\w+=", page)


def test_modules_use_messages_that_exist(modules: Page) -> None:
    en = modules.evaluate("async () => (await import('/page/en.js')).default")
    sources = [
        path.read_text("utf-8") for path in FOLDER.iterdir() if path.suffix in (".js", ".html")
    ]
    used = {key for source in sources for key in re.findall(r"\bt\(\"([\w.+/-]+)\"", source)}
    used |= {key for source in sources for key in re.findall(r"data-t[\w-]*=\"([^\"]+)\"", source)}
    assert len(used) > 80 and used <= en.keys()
