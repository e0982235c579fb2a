"""Errors say what happened and what to do; nothing that the endpoint sends is run as code."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.helpers.browser import hits, is_search, search
from tests.helpers.endpoint import Endpoint


def problem(route: Route, status: int, headers: dict[str, str] | None = None) -> None:
    """Answer as the endpoint does when it is overloaded or wants a key."""
    body = {"status": status, "title": "T", "detail": "what came", "request_id": "id-1"}
    route.fulfill(
        status=status,
        headers={"content-type": "application/problem+json"} | (headers or {}),
        body=json.dumps(body),
    )


def test_broken_file(page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"neither a picture nor a video" * 100)
    with page.expect_response(is_search) as response:
        page.set_input_files("#file", broken)
    panel = page.locator(".problem")
    expect(panel).to_contain_text("The file cannot be read")
    expect(panel).to_contain_text("send another file")
    expect(panel).to_contain_text(response.value.json()["detail"])
    expect(panel).to_contain_text(response.value.headers["x-request-id"])
    assert hits(page).count() == 0


def test_invalid_filter_is_marked(page: Page, endpoint: Endpoint) -> None:
    page.click("#open-filter")
    page.fill("#sql", "no_such_column = 1")
    page.fill("#words", endpoint.words)
    page.press("#words", "Enter")
    expect(page.locator(".problem")).to_contain_text("The filter is invalid")
    expect(page.locator(".problem")).to_contain_text("no_such_column")
    expect(page.locator("#sql")).to_have_attribute("aria-invalid", "true")


def test_busy_endpoint_is_tried_again_on_request(page: Page, endpoint: Endpoint) -> None:
    page.route("**/v1/search", lambda route: problem(route, 429, {"retry-after": "3"}))
    page.fill("#words", endpoint.words)
    page.press("#words", "Enter")
    expect(page.locator(".problem")).to_contain_text("Try again in 3 s")
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    expect(hits(page).first).to_be_visible()
    expect(page.locator(".problem")).to_have_count(0)


def test_endpoint_out_of_reach(page: Page, endpoint: Endpoint) -> None:
    page.context.set_offline(True)
    page.fill("#words", endpoint.words)
    page.press("#words", "Enter")
    expect(page.locator(".problem")).to_contain_text("cannot be reached")


def test_key_is_asked_for_and_the_search_repeated(page: Page, endpoint: Endpoint) -> None:
    given = []

    def session(route: Route) -> None:
        given.append(route.request.headers["authorization"])
        if given[-1] == "Bearer right":
            page.unroute("**/v1/search")
            route.fulfill(status=204)
        else:
            problem(route, 401)

    page.route("**/v1/search", lambda route: problem(route, 401))
    page.route("**/v1/session", session)
    page.fill("#words", endpoint.words)
    page.press("#words", "Enter")
    dialog = page.get_by_role("dialog", name="API key")
    for key in ("wrong", "right"):
        dialog.get_by_label("Key", exact=True).fill(key)
        dialog.get_by_role("button", name="Continue").click()
        if key == "wrong":
            expect(dialog).to_contain_text("does not know this key")
    expect(hits(page).first).to_be_visible()
    assert given == ["Bearer wrong", "Bearer right"]
    expect(dialog).to_be_hidden()


def test_no_key_shows_that_one_is_needed(page: Page, endpoint: Endpoint) -> None:
    page.route("**/v1/search", lambda route: problem(route, 401))
    page.fill("#words", endpoint.words)
    page.press("#words", "Enter")
    page.wait_for_selector("#key-dialog[open]")
    page.keyboard.press("Escape")
    expect(page.locator(".problem")).to_contain_text("A key is needed")


@pytest.mark.parametrize("field", ["text", "product_id"])
def test_markup_in_texts_and_ids_is_shown_and_not_run(
    page: Page, endpoint: Endpoint, field: str
) -> None:
    markup = f"<img src=x onerror='window.ran = 1'> {endpoint.words}"

    def hostile(route: Route) -> None:
        answer = route.fetch().json()
        for found in answer["results"].values():
            for hit in found:
                hit[field] = hit["group"] = markup
        route.fulfill(json=answer)

    page.route("**/v1/search", hostile)
    search(page, endpoint.words)
    expect(page.locator(".hit .text" if field == "text" else ".product h3").first).to_contain_text(
        "<img src=x onerror='window.ran = 1'>"
    )
    assert page.evaluate("window.ran") is None


def test_page_loads_nothing_from_elsewhere(page: Page, endpoint: Endpoint) -> None:
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    search(page, endpoint.words)
    own = (endpoint.url.rstrip("/") + "/", "blob:", "data:")
    assert asked and all(url.startswith(own) for url in asked)
    policy = page.request.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy


def test_page_that_was_open_before_the_endpoint_was_ready(page: Page, endpoint: Endpoint) -> None:
    page.route("**/v1/index", lambda route: problem(route, 503, {"retry-after": "5"}))
    page.reload()
    expect(page.locator("#freshness")).to_have_text("not reachable")
    page.unroute("**/v1/index")
    search(page, endpoint.words)
    expect(page.locator("#freshness")).to_contain_text("samples")
    page.click("#open-filter")
    expect(page.locator("[name=column]")).to_be_visible()
