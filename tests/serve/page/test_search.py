"""Searching by words, picture and clip; filter, groups and domains; what a hit shows."""

import re

import httpx
from playwright.sync_api import Page, Route, expect

from tests.helpers.browser import dropped, hits, ids, is_search, search, shown, upload
from tests.helpers.endpoint import Endpoint


def best_product(page: Page) -> str | None:
    return page.locator(".product").first.get_attribute("data-product")


def test_search_by_words_marks_them_in_the_hits(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    assert best_product(page) == endpoint.product
    marks = page.locator(f".product[data-product='{endpoint.product}'] .text mark")
    assert marks.count() > 0
    assert all(word in endpoint.words for word in marks.all_inner_texts())
    expect(page.locator(".summary")).to_contain_text("Hybrid")


def test_search_by_picture(page: Page, endpoint: Endpoint) -> None:
    answer = upload(page, endpoint.picture)
    assert answer["query"]["parts"] == ["file"]
    assert best_product(page) == endpoint.product
    expect(page.locator(".query-chip")).to_contain_text(endpoint.picture.name)


def test_search_by_dropped_clip(page: Page, endpoint: Endpoint) -> None:
    with page.expect_response(is_search) as response:
        transfer = dropped(page, endpoint.clip, "video/mp4")
        page.dispatch_event("#results", "drop", {"dataTransfer": transfer})
    answer = shown(page, response.value)
    assert answer["query"]["parts"] == ["file"]
    assert best_product(page) == endpoint.product
    expect(page.locator(".query-chip")).to_contain_text(endpoint.clip.name)


def test_search_by_pasted_picture_and_words(page: Page, endpoint: Endpoint) -> None:
    page.fill("#words", endpoint.words)
    with page.expect_response(is_search) as response:
        transfer = dropped(page, endpoint.picture, "image/jpeg")
        page.evaluate(
            """clipboardData => document.body.dispatchEvent(
                new ClipboardEvent("paste", {clipboardData, bubbles: true}))""",
            transfer,
        )
    assert shown(page, response.value)["query"]["parts"] == ["file", "words"]
    hits(page).first.locator("[data-key=w]").click()
    expect(page.locator(".why .bar span:first-child")).to_have_text(
        ["Picture", "Words", "Whole query"]
    )


def test_filter_by_a_column(page: Page, endpoint: Endpoint) -> None:
    columns = httpx.get(f"{endpoint.url}/v1/index").json()["columns"]
    fixed = ("sample_id", "product_id", "domain", "text")
    column = next(c["name"] for c in columns if c["type"] == "string" and c["name"] not in fixed)
    facets = httpx.post(f"{endpoint.url}/v1/facets", json={"columns": [column]}).json()
    value = next(facet["value"] for facet in facets["facets"][column] if facet["value"])
    search(page, endpoint.words)
    page.click("#open-filter")
    page.select_option("[name=column]", column)
    page.select_option("[name=operator]", "=")
    page.fill("[name=value]", value)
    expect(page.locator("#filter-preview")).to_have_text(f"\"{column}\" = '{value}'")
    with page.expect_response(is_search) as response:
        page.get_by_role("button", name="Apply").click()
    results = shown(page, response.value)["results"]
    found = [hit for in_domain in results.values() for hit in in_domain]
    assert found and {hit["columns"][column] for hit in found} == {value}
    with page.expect_response(is_search) as response:
        page.get_by_role("button", name="Clear").click()
    assert "filter" not in response.value.request.post_data_json


def test_groups_are_rows_of_products_in_three_columns(page: Page, endpoint: Endpoint) -> None:
    answer = search(page, endpoint.words)
    found = [hit for in_domain in answer["results"].values() for hit in in_domain]
    assert page.locator(".product").count() == len({hit["product_id"] for hit in found})
    row = page.locator(f".product[data-product='{endpoint.product}']")
    boxes = [row.locator(f".cell[data-domain={name}]").bounding_box() for name in answer["results"]]
    assert boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]
    assert len({box["y"] for box in boxes}) == 1
    with page.expect_response(is_search) as response:
        page.get_by_text("Group by product").click()
    answer = shown(page, response.value)
    assert page.locator(".product").count() == 0
    in_order = [hit["sample_id"] for in_domain in answer["results"].values() for hit in in_domain]
    assert ids(page) == in_order


def test_chosen_domains_are_columns(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    with page.expect_response(is_search) as response:
        page.locator(".chip[data-domain=page]").click()
    assert shown(page, response.value)["results"].keys() == {"short", "live"}
    expect(page.locator(".column-head")).to_contain_text(["Shorts", "Lives"])


def test_more_hits_on_request(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    few = len(ids(page))
    with page.expect_response(is_search) as response:
        page.get_by_role("button", name="More").click()
    shown(page, response.value)
    assert len(ids(page)) > few


def test_nothing_found_says_what_to_do(page: Page) -> None:
    page.select_option("[name=mode]", "lexical")
    search(page, "zzqqxx")
    expect(page.locator(".empty")).to_contain_text("Nothing found")
    expect(page.locator(".empty")).to_contain_text("Use fewer words")
    assert hits(page).count() == 0


def test_frames_on_hover(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    picture = hits(page, "live").first.locator(".picture")
    picture.hover()
    expect(picture.locator("img")).to_have_attribute("src", re.compile("/frames/1$"))
    page.mouse.move(0, 0)
    expect(picture.locator("img")).to_have_attribute("src", re.compile("/frames/0$"))


def test_frames_cycle_once_however_often_the_pointer_came(page: Page, endpoint: Endpoint) -> None:
    search(page, endpoint.words)
    held: list[Route] = []
    page.route("**/frames", lambda route: held.append(route))
    page.clock.install()
    hit = hits(page, "live").first
    for _ in range(2):  # it leaves before the frames are there, and comes again
        hit.locator(".picture").hover()
        page.clock.run_for(300)
        page.mouse.move(0, 0)
    hit.locator(".picture").hover()
    page.clock.run_for(300)
    with page.expect_response("**/frames"):
        held[0].continue_()
    ticks = hit.locator(".ticks")
    expect(ticks).to_be_attached()
    expect(ticks).to_have_count(1)
    page.mouse.move(0, 0)
    expect(ticks).to_have_count(0)


def test_empty_query_starts_no_search(page: Page) -> None:
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".start")).to_contain_text("A picture or clip")
    assert hits(page).count() == 0
