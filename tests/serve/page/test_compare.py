"""Two rankings side by side, and judgments of their hits."""

import hashlib
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.helpers.browser import search, upload
from tests.helpers.endpoint import Endpoint


def side_by_side(page: Page) -> None:
    """Compare the rankings by vectors and by words."""
    page.get_by_text("Side by side").click()
    choices = page.locator(".side-choice")
    choices.nth(0).locator("[name=mode]").select_option("vector")
    choices.nth(1).locator("[name=mode]").select_option("lexical")
    if choices.nth(1).locator("[name=model]").count():  # one model, ranked in two ways
        choices.nth(1).locator("[name=model]").select_option(index=0)


def judged(page: Page, tile: Any, grade: int) -> Any:
    """Press a thumb, and wait until the judgment is stored."""
    with page.expect_response("**/v1/judgments") as response:
        tile.locator(f"[data-grade='{grade}']").click()
    assert response.value.status == 201
    return response.value.request.post_data_json


def stored_ids(endpoint: Endpoint) -> set[str]:
    """Ids of the stored judgments."""
    stored = httpx.get(f"{endpoint.url}/v1/judgments").json()["judgments"]
    return {judgment["judgment_id"] for judgment in stored}


def test_two_modes_side_by_side(page: Page, endpoint: Endpoint) -> None:
    side_by_side(page)
    search(page, endpoint.words)
    sides = page.locator(".side")
    expect(sides).to_have_count(2)
    expect(sides.nth(0).locator(".summary")).to_contain_text("Vectors")
    expect(sides.nth(1).locator(".summary")).to_contain_text("Words (BM25)")
    left, right = sides.nth(0).bounding_box(), sides.nth(1).bounding_box()
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]
    # The same sample on both sides: what one side has gained, the other has lost.
    page.wait_for_selector(".change")
    changes = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".side")].map(side => [
            side.dataset.side, Object.fromEntries([...side.querySelectorAll(".hit")].map(hit => [
                hit.dataset.id,
                [Number(hit.querySelector(".rank").textContent),
                 hit.querySelector(".change").textContent],
            ])),
        ]))"""
    )
    both = changes["A"].keys() & changes["B"].keys()
    assert both
    for sample_id in both:
        (rank_a, change_a), (rank_b, change_b) = changes["A"][sample_id], changes["B"][sample_id]
        moved = rank_b - rank_a
        arrows = ("=", "=") if not moved else ("▲", "▼") if moved > 0 else ("▼", "▲")
        assert (change_a[0], change_b[0]) == arrows
        assert not moved or change_a.endswith(str(abs(moved)))


def test_judgment_names_query_hit_and_rival(page: Page, endpoint: Endpoint) -> None:
    side_by_side(page)
    search(page, endpoint.words)
    tile = page.locator(".side[data-side=B] .hit").first
    sent = judged(page, tile, 1)
    assert sent["query"]["text"] == endpoint.words
    assert sent["sample_id"] == tile.get_attribute("data-id")
    assert (sent["mode"], sent["rank"], sent["grade"]) == ("lexical", 1, 1)
    assert sent["rival"]["mode"] == "vector"
    expect(tile.locator("[data-grade='1']")).to_have_attribute("aria-pressed", "true")
    stored = httpx.get(f"{endpoint.url}/v1/judgments").json()["judgments"]
    assert any(sent.items() <= judgment.items() for judgment in stored)


def test_judgment_of_a_picture_names_its_hash(page: Page, endpoint: Endpoint) -> None:
    upload(page, endpoint.picture)
    tile = page.locator(".hit").first
    sent = judged(page, tile, -1)
    assert sent["query"]["media"] == hashlib.sha256(endpoint.picture.read_bytes()).hexdigest()
    assert (sent["query"]["text"], sent["grade"], sent["rival"]) == (None, -1, None)
    judged(page, tile, 1)
    pressed = [tile.locator(f"[data-grade='{grade}']") for grade in (1, -1)]
    expect(pressed[0]).to_have_attribute("aria-pressed", "true")
    expect(pressed[1]).to_have_attribute("aria-pressed", "false")


def test_judgment_that_is_not_stored_is_taken_back(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    page.route("**/v1/judgments", lambda route: route.abort())
    thumb = page.locator(".hit [data-grade='1']").first
    thumb.click()
    expect(page.locator("#toast")).to_contain_text("cannot be reached")
    expect(thumb).to_have_attribute("aria-pressed", "false")


def test_second_press_on_a_thumb_takes_all_judgments_of_the_hit_back(
    page: Page, endpoint: Endpoint
) -> None:
    search(page, endpoint.words)
    tile = page.locator(".hit").first
    before = stored_ids(endpoint)
    judged(page, tile, -1)
    judged(page, tile, 1)
    assert len(stored_ids(endpoint) - before) == 2
    tile.locator("[data-grade='1']").click()
    expect(page.locator("#toast")).to_have_text("Judgment taken back")
    for grade in (1, -1):
        expect(tile.locator(f"[data-grade='{grade}']")).to_have_attribute("aria-pressed", "false")
    assert stored_ids(endpoint) == before
    judged(page, tile, 1)
    assert len(stored_ids(endpoint) - before) == 1


def test_presses_are_sent_in_their_order(page: Page, endpoint: Endpoint) -> None:
    """Two fast presses on a thumb: what the second takes back is stored first."""
    search(page, endpoint.words)
    before = stored_ids(endpoint)
    thumb = page.locator(".hit").nth(1).locator("[data-grade='-1']")
    with page.expect_response(lambda response: response.request.method == "DELETE") as response:
        thumb.evaluate("thumb => { thumb.click(); thumb.click(); }")
    assert response.value.status == 204
    expect(thumb).to_have_attribute("aria-pressed", "false")
    assert stored_ids(endpoint) == before


def test_judgment_that_cannot_be_taken_back_stays(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    tile = page.locator(".hit").nth(2)
    judged(page, tile, 1)
    thumb = tile.locator("[data-grade='1']")
    expect(page.locator("#toast")).to_have_text("Judgment stored")
    page.route("**/v1/judgments/*", lambda route: route.abort())
    thumb.click()
    expect(page.locator("#toast")).to_contain_text("cannot be reached")
    expect(thumb).to_have_attribute("aria-pressed", "true")
    page.unroute("**/v1/judgments/*")
    thumb.click()
    expect(page.locator("#toast")).to_have_text("Judgment taken back")


def test_words_are_missing_for_a_ranking_by_words(page: Page, endpoint: Endpoint) -> None:
    side_by_side(page)
    upload(page, endpoint.picture)
    expect(page.locator(".side[data-side=B] .note")).to_contain_text("the query has no words")
