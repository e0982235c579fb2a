"""A result is the next query: by dragging it, by its button, by a key."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.helpers.browser import hits, ids, is_search, search, shown
from tests.helpers.endpoint import Endpoint


def drag(page: Page) -> None:
    hits(page).first.drag_to(page.locator("#box"))


def press_button(page: Page) -> None:
    hits(page).first.get_by_label("Search with this result").click()


def press_key(page: Page) -> None:
    hits(page).first.locator(".picture").focus()
    page.keyboard.press("s")


@pytest.mark.parametrize("use", [drag, press_button, press_key])
def test_result_is_the_next_query(page: Page, endpoint: Endpoint, use: Any) -> None:
    search(page, endpoint.words)
    chosen = ids(page)[0]
    with page.expect_response(is_search) as response:
        use(page)
    answer = shown(page, response.value)
    assert answer["query"]["parts"] == ["sample"]
    assert response.value.request.post_data_json["sample_id"] == chosen
    assert chosen not in ids(page)
    expect(page.locator(".query-chip")).to_contain_text(chosen)
    expect(page.locator("#words")).to_have_value("")


def test_result_is_removed_from_the_query(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    with page.expect_response(is_search):
        press_button(page)
    page.locator(".query-chip button").click()
    assert search(page, endpoint.words)["query"]["parts"] == ["words"]
