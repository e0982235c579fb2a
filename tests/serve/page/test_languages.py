"""Chinese and English, by the browser's setting and by the switch; light and dark."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from serve.messages import message
from tests.helpers.browser import hits, opened, search, visit
from tests.helpers.endpoint import Endpoint


@pytest.mark.parametrize(
    ("locale", "lang", "go", "domains"),
    [
        ("zh-CN", "zh-CN", "搜索", ["商品页", "短视频", "直播"]),
        ("de-DE", "en", "Search", ["Pages", "Shorts", "Lives"]),
    ],
)
def test_language_of_the_browser(
    browser: Browser, endpoint: Endpoint, locale: str, lang: str, go: str, domains: list[str]
) -> None:
    with opened(browser, endpoint.url, locale=locale) as page:
        visit(page)
        expect(page.locator("html")).to_have_attribute("lang", lang)
        expect(page.get_by_role("button", name=go, exact=True)).to_be_visible()
        search(page, endpoint.words)
        expect(page.locator(".column-head")).to_contain_text(domains)


@contextmanager
def chinese(browser: Browser, endpoint: Endpoint) -> Iterator[Page]:
    """The page in Chinese."""
    with opened(browser, endpoint.url, locale="zh-CN") as page:
        visit(page)
        yield page


def has_chinese(text: str) -> bool:
    return re.search("[\u4e00-\u9fff]", text) is not None


def test_errors_of_the_endpoint_are_chinese(
    browser: Browser, endpoint: Endpoint, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"neither a picture nor a video" * 100)
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(3 * 2**20))
    with chinese(browser, endpoint) as page:
        for file, sentence in ((broken, "原因（英文）："), (large, "字节，上限为")):
            page.set_input_files("#file", file)
            expect(page.locator(".problem .detail").first).to_contain_text(sentence)
        visit(page)
        page.fill("#words", "茶" * 30_000)
        page.press("#words", "Enter")
        details = page.locator(".problem .detail")
        expect(details).to_contain_text(["请求中的 text 无效。", "text: 不能超过"])
        assert all(map(has_chinese, page.locator(".problem p").all_inner_texts()))


def test_notes_of_the_endpoint_are_chinese_and_unknown_ones_english(
    browser: Browser, endpoint: Endpoint
) -> None:
    late = message("transcriber.late", seconds="10").answer()
    newer = {"code": "of.a.newer.endpoint", "message": "an English note", "values": {}}

    def noted(route: Route) -> None:
        answer = route.fetch().json()
        answer["query"]["notes"] = [late, newer]
        route.fulfill(json=answer)

    with chinese(browser, endpoint) as page:
        page.route("**/v1/search", noted)
        search(page, endpoint.words)
        notes = page.locator(".note")
        expect(notes).to_have_text(
            ["语音转写在 10 秒内没有结果，已按画面搜索。", "an English note"]
        )
        page.get_by_label("Switch to English").click()
        expect(notes).to_have_text([late["message"], "an English note"])


def test_switch_translates_the_results_and_is_kept(browser: Browser, endpoint: Endpoint) -> None:
    with opened(browser, endpoint.url) as page:
        visit(page)
        search(page, endpoint.words)
        page.get_by_label("切换到中文").click()
        expect(page.locator(".column-head").first).to_contain_text("商品页")
        expect(page.locator(".summary h2")).to_contain_text("件商品")
        expect(page.locator("#words")).to_have_value(endpoint.words)
        page.reload()
        expect(page.locator(".column-head").first).to_contain_text("商品页")


def test_page_follows_the_color_scheme(browser: Browser, endpoint: Endpoint) -> None:
    colors = []
    for scheme in ("light", "dark"):
        with opened(browser, endpoint.url, color_scheme=scheme) as page:
            visit(page)
            search(page, endpoint.words)
            expect(hits(page).first).to_be_visible()
            colors.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(map(int, color[4:-1].split(","))) for color in colors)
    assert light > 600 and dark < 150
