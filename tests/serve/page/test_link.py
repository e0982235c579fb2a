"""A link repeats a search: query, filter, settings."""

from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import ids, is_search, opened, search, shown, upload, visit
from tests.helpers.endpoint import Endpoint


def copied_link(page: Page) -> str:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Link").click()
    page.wait_for_selector("#toast:not([hidden])")
    return page.evaluate("navigator.clipboard.readText()")


def test_link_reproduces_the_search(page: Page, browser: Browser, endpoint: Endpoint) -> None:
    page.locator(".chip[data-domain=live]").click()
    page.get_by_text("Group by product").click()
    page.select_option("[name=mode]", "vector")
    page.click("#open-filter")
    page.fill("#sql", "product_id IS NOT NULL")
    search(page, endpoint.words)
    link, found = copied_link(page), ids(page)
    assert found
    with opened(browser, endpoint.url) as other:
        visit(other, link)
        other.wait_for_selector(".hit")
        assert ids(other) == found
        expect(other.locator("#words")).to_have_value(endpoint.words)
        expect(other.locator("#sql")).to_have_value("product_id IS NOT NULL")
        expect(other.locator("[name=mode]")).to_have_value("vector")
        assert not other.locator("#group").is_checked()
        assert not other.locator("[name=domain][value=live]").is_checked()


def test_link_of_two_sides(page: Page, browser: Browser, endpoint: Endpoint) -> None:
    page.get_by_text("Side by side").click()
    page.locator(".side-choice").nth(1).locator("[name=mode]").select_option("lexical")
    search(page, endpoint.words)
    with opened(browser, endpoint.url) as other:
        visit(other, copied_link(page))
        expect(other.locator(".side")).to_have_count(2)
        expect(other.locator(".side[data-side=B] .summary")).to_contain_text("Words (BM25)")


def test_link_asks_for_its_file_again(page: Page, browser: Browser, endpoint: Endpoint) -> None:
    upload(page, endpoint.picture)
    link, found = copied_link(page), ids(page)
    expect(page.locator("#toast")).to_contain_text("must be dropped again")
    with opened(browser, endpoint.url) as other:
        visit(other, link)
        expect(other.locator(".drop-again")).to_contain_text(endpoint.picture.name)
        upload(other, endpoint.picture)
        assert ids(other) == found


def test_back_returns_to_the_search_before(page: Page, endpoint: Endpoint) -> None:
    upload(page, endpoint.picture)
    found = ids(page)
    page.locator(".query-chip button").click()
    search(page, endpoint.words)
    with page.expect_response(is_search) as response:
        page.go_back()
    shown(page, response.value)
    assert ids(page) == found
    expect(page.locator("#words")).to_have_value("")


def test_files_of_one_name_are_kept_apart(page: Page, endpoint: Endpoint, tmp_path: Path) -> None:
    picture = tmp_path / endpoint.picture.name
    Image.new("RGB", (64, 64), "red").save(picture)
    upload(page, endpoint.picture)
    found = ids(page)
    upload(page, picture)
    expect(page.locator(".query-chip")).to_contain_text(f"{picture.stem} (2){picture.suffix}")
    with page.expect_response(is_search) as response:
        page.go_back()
    shown(page, response.value)
    assert ids(page) == found
