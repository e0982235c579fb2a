"""The page without a pointer."""

from playwright.sync_api import Page, expect

from tests.helpers.browser import hits, is_search, search, shown
from tests.helpers.endpoint import Endpoint


def focused_hit(page: Page) -> str | None:
    return page.evaluate("document.activeElement.closest('.hit')?.dataset.id ?? null")


def test_search_and_open_and_judge_by_keys(page: Page, endpoint: Endpoint) -> None:
    page.keyboard.press("/")
    expect(page.locator("#words")).to_be_focused()
    with page.expect_response(is_search) as response:
        page.keyboard.insert_text(endpoint.words)
        page.keyboard.press("Enter")
    shown(page, response.value)
    expect(page.locator("#announce")).to_contain_text("products")
    first = hits(page).first
    while focused_hit(page) is None:
        page.keyboard.press("Tab")
    assert focused_hit(page) == first.get_attribute("data-id")
    page.keyboard.press("w")
    expect(first.locator(".why")).to_be_visible()
    page.keyboard.press("w")
    expect(first.locator(".why")).to_have_count(0)
    with page.expect_response("**/v1/judgments"):
        page.keyboard.press("+")
    expect(first.locator("[data-grade='1']")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert focused_hit(page) == first.get_attribute("data-id")


def test_arrows_move_between_hits(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    picture = hits(page).first.locator(".picture")
    picture.focus()
    before, start = picture.bounding_box(), focused_hit(page)
    page.keyboard.press("ArrowRight")
    after = page.locator(".picture:focus").bounding_box()
    assert after["x"] > before["x"] and after["y"] == before["y"]
    page.keyboard.press("ArrowLeft")
    assert focused_hit(page) == start
    page.keyboard.press("ArrowDown")
    assert focused_hit(page) != start
    page.keyboard.press("ArrowUp")
    assert focused_hit(page) == start


def test_focus_is_visible(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    page.keyboard.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    for _ in range(12):
        page.keyboard.press("Tab")
        is_chip = page.evaluate("document.activeElement.closest('.chip, #file') !== null")
        assert is_chip or page.evaluate(outline) == "solid"


def test_controls_have_names(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    page.click("#open-filter")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("#view-search, .top")]
            .flatMap(part => [...part.querySelectorAll("button, input, select, [role=button]")])
            .filter(control => control.checkVisibility())
            .filter(control => !(control.ariaLabel || control.innerText?.trim()
                || control.labels?.[0]?.innerText.trim()))
            .map(control => control.outerHTML)"""
    )
    assert nameless == []


def test_help_names_the_keys(page: Page) -> None:
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_contain_text("search with the result")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
