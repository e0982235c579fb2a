"""Chinese and English, by the browser's setting and by the switch; light and dark."""

import pytest
from playwright.sync_api import Browser, expect

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
