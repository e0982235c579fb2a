"""Coverage and the state of the index; a phone's width."""

import re

import httpx
from playwright.sync_api import Browser, Page, Route, expect

from tests.helpers.browser import PHONE, expect_picture, hits, opened, search, visit
from tests.helpers.endpoint import Endpoint


def test_coverage_counts_and_lists(page: Page, endpoint: Endpoint) -> None:
    model = httpx.get(f"{endpoint.url}/v1/index").json()["models"][0]["model"]
    coverage = httpx.get(f"{endpoint.url}/v1/coverage", params={"model": model}).json()
    page.get_by_role("link", name="Coverage").click()
    counts = coverage["counts"]
    expect(page.locator(".figure b")).to_have_text(f"{counts['products']:,}")
    shown = {
        **{f"no.{domain}": len(found) for domain, found in coverage["missing"].items()},
        "duplicates": len(coverage["duplicates"]),
        "doubtful": len(coverage["doubtful"]),
    }
    for name, rows in shown.items():
        button = page.locator(f"[data-name='{name}']")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        expect(page.locator(".list tbody tr")).to_have_count(rows)


def test_coverage_shows_thumbnails_and_searches_for_what_is_missing(
    page: Page, endpoint: Endpoint
) -> None:
    """The endpoint's catalog may lack nothing: its answer is changed to lack a short."""
    sample = httpx.post(
        f"{endpoint.url}/v1/search", json={"text": endpoint.words, "domains": ["page"], "k": 1}
    ).json()["results"]["page"][0]["sample_id"]

    def without_short(route: Route) -> None:
        answer = route.fetch().json()
        answer["missing"]["short"] = [endpoint.product]
        answer["counts"]["missing"]["short"] = 1
        answer["pages"][endpoint.product] = sample
        route.fulfill(json=answer)

    page.route("**/v1/coverage*", without_short)
    visit(page, "/#/coverage")
    page.reload()  # the address above differs in its hash alone
    page.locator("[data-name='no.short']").click()
    row = page.locator(".list tbody tr")
    expect(row).to_contain_text(endpoint.product)
    expect_picture(page.locator(".sample-cell img"))
    row.get_by_role("link", name="Find shorts").click()
    expect(hits(page, "short").first).to_be_visible()
    expect(page.locator(".query-chip")).to_contain_text(sample)
    assert hits(page, "page").count() == 0


def test_index_shows_version_rows_and_failures(page: Page, endpoint: Endpoint) -> None:
    page.get_by_role("link", name="Index").click()
    model = httpx.get(f"{endpoint.url}/v1/index").json()["models"][0]
    panel = page.locator(".model").first
    expect(panel).to_contain_text(model["name"])
    expect(panel.locator("tbody tr td:nth-child(2)")).to_have_text(
        [f"{model['rows'][domain]:,}" for domain in ("page", "short", "live")]
    )
    failures = httpx.get(f"{endpoint.url}/v1/failures").json()
    page.locator("[data-name=all]").click()
    expect(page.locator("[data-name=all] b")).to_have_text(str(failures["total"]))
    expect(page.locator("#view-index > .list tbody tr")).to_have_count(len(failures["failures"]))
    for failure in failures["failures"]:
        expect(page.locator("#view-index > .list")).to_contain_text(failure["error"])


def test_phone_shows_one_domain_at_a_time(browser: Browser, endpoint: Endpoint) -> None:
    with opened(browser, endpoint.url, **PHONE) as page:
        visit(page)
        search(page, endpoint.words)
        expect(hits(page, "page").first).to_be_visible()
        expect(hits(page, "live").first).to_be_hidden()
        page.get_by_role("tab", name=re.compile("Lives")).tap()
        expect(hits(page, "live").first).to_be_visible()
        expect(hits(page, "page").first).to_be_hidden()
        hits(page, "live").first.locator(".picture").tap()
        expect(page.locator("#details .screen")).to_be_visible()
        page.get_by_role("button", name="Close").tap()
        for view in ("search", "coverage", "index"):
            page.evaluate("view => { location.hash = `#/${view}` }", view)
            page.wait_for_selector(f"#view-{view}:not([hidden])")
            assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_phone_has_the_options_of_a_search(browser: Browser, endpoint: Endpoint) -> None:
    with opened(browser, endpoint.url, **PHONE) as page:
        visit(page)
        expect(page.locator("[name=mode]")).to_be_hidden()
        page.get_by_role("button", name="Options").tap()
        page.select_option("[name=mode]", "lexical")
        search(page, endpoint.words)
        expect(page.locator(".summary")).to_contain_text("Words (BM25)")
