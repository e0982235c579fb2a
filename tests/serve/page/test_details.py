"""The dialog of a hit: a clip plays at the moment that fits; its texts with marked words."""

from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.helpers.browser import expect_picture, hits, search, upload
from tests.helpers.endpoint import Endpoint

# Notes where the video was sought.
RECORD_SEEK = """addEventListener("seeked", ({target}) => {
    document.documentElement.dataset.sought = target.currentTime
}, true)"""


@pytest.fixture
def page(page: Page) -> Page:
    page.evaluate(RECORD_SEEK)
    return page


def sought(page: Page) -> float:
    """Where the video was sought."""
    return float(page.wait_for_selector("[data-sought]").get_attribute("data-sought"))


def is_moment(response: Any) -> bool:
    return response.url.endswith("/moment")


def test_clip_plays_at_the_frame_nearest_to_a_picture(page: Page, endpoint: Endpoint) -> None:
    answer = upload(page, endpoint.picture)
    hit = next(hit for hit in answer["results"]["live"] if hit["moment"] is None)
    with page.expect_response(is_moment) as response:
        page.locator(f".hit[data-id='{hit['sample_id']}'] .picture").click()
    moment = response.value.json()
    assert sought(page) == pytest.approx(moment["at_s"], abs=0.2)
    expect(page.locator(".stage .moment")).to_contain_text("the frame nearest to the query")
    expect(page.locator("#details video")).to_have_js_property("paused", False)
    expect(page.locator(".strip button").nth(moment["frame"])).to_have_class("on")


def test_clip_plays_where_the_words_are_said(page: Page, endpoint: Endpoint) -> None:
    answer = search(page, endpoint.words)
    said = [hit for name in ("short", "live") for hit in answer["results"][name] if hit["moment"]]
    assert said, "no hit of the catalog has a moment: it needs transcripts"
    hit = max(said, key=lambda hit: hit["moment"]["start_s"])
    page.locator(f".hit[data-id='{hit['sample_id']}'] .picture").click()
    assert sought(page) == pytest.approx(hit["moment"]["start_s"], abs=0.2)
    expect(page.locator(".stage .moment")).to_contain_text(hit["moment"]["text"])


def test_summary_beside_transcript_with_marked_words(page: Page, endpoint: Endpoint) -> None:
    answer = search(page, endpoint.words)
    urls = [hit["urls"]["sample"] for hit in answer["results"]["live"]]
    samples = (httpx.get(endpoint.url + url).json() for url in urls)
    sample = next(sample for sample in samples if sample["transcript"] and sample["summaries"])
    page.locator(f".hit[data-id='{sample['sample_id']}'] .picture").click()
    sections = page.locator(".texts section")
    expect(sections.nth(0)).to_contain_text(sample["summaries"][0]["text"])
    expect(sections.nth(1)).to_contain_text(sample["transcript"]["segments"][0]["text"])
    left, right = sections.nth(0).bounding_box(), sections.nth(1).bounding_box()
    assert left["y"] == right["y"] and left["x"] < right["x"]
    assert page.locator("#details mark").count() > 0


def test_segment_of_a_transcript_plays(page: Page, endpoint: Endpoint) -> None:
    answer = search(page, endpoint.words)
    hit = next(hit for hit in answer["results"]["live"] if hit["moment"])
    page.locator(f".hit[data-id='{hit['sample_id']}'] .picture").click()
    sought(page)
    page.evaluate("delete document.documentElement.dataset.sought")
    line = page.locator(".segment").last
    line.get_by_role("button").click()
    assert sought(page) == pytest.approx(float(line.get_attribute("data-start")), abs=0.2)
    expect(line).to_have_attribute("aria-current", "true")


def test_page_shows_its_picture_title_and_columns(page: Page, endpoint: Endpoint) -> None:
    answer = search(page, endpoint.words)
    hit = answer["results"]["page"][0]
    page.locator(f".hit[data-id='{hit['sample_id']}'] .picture").click()
    details = page.locator("#details")
    expect(details.locator(".facts")).to_contain_text(hit["text"])
    expect(details.locator(".columns-list dt")).to_contain_text(list(hit["columns"]))
    expect_picture(page.locator(".screen img"))
    expect(details.locator(".why")).to_contain_text("Whole query")


def test_clip_that_the_browser_cannot_play_shows_its_frames(page: Page, endpoint: Endpoint) -> None:
    page.route("**/media*", lambda route: route.fulfill(body=b"no video", content_type="video/mp4"))
    search(page, endpoint.words)
    hits(page, "live").first.locator(".picture").click()
    expect(page.locator(".stage .moment")).to_contain_text("cannot play the file")
    expect_picture(page.locator(".screen img"))


def test_late_answer_does_not_replace_the_sample_that_was_opened_next(
    page: Page, endpoint: Endpoint
) -> None:
    search(page, endpoint.words)
    first, second = hits(page, "page").nth(0), hits(page, "page").nth(1)
    held: list[Route] = []
    page.route(f"**/v1/samples/{first.get_attribute('data-id')}", lambda route: held.append(route))
    first.locator(".picture").click()
    expect(page.locator("#details .loading")).to_be_visible()
    page.keyboard.press("Escape")
    second.locator(".picture").click()
    shown = page.locator("#details .sample-id")
    expect(shown).to_have_text(second.get_attribute("data-id") or "")
    with page.expect_response(held[0].request.url):
        held[0].continue_()
    page.evaluate("fetch('/healthz').then(() => 0)")  # by then the page has read the late answer
    expect(shown).to_have_text(second.get_attribute("data-id") or "")
