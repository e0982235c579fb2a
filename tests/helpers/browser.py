"""The system's Chromium, driven by Playwright: real input and layout; no browser is downloaded.

The page forbids `eval`, so `wait_for_function` takes no texts; wait for selectors and properties.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    Response,
    sync_playwright,
)

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
WAIT_MS = 10_000
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser. Skips the test where none is installed."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(CHROMIUM)} is in PATH; install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, **options: object) -> Iterator[Page]:
    """A page of a fresh browser profile; it must not log an error of its own.

    Args:
        browser: from `chromium`.
        url: of the endpoint.
        options: of Playwright's `new_context`, such as `locale`.
    """
    context = browser.new_context(**{"base_url": url, "locale": "en-US"} | options)
    context.set_default_timeout(WAIT_MS)
    with context, without_errors(context.new_page()) as page:
        yield page


@contextmanager
def without_errors(page: Page) -> Iterator[Page]:
    """Fails if the page logs an error of its own."""
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if is_own(message):
            errors.append(f"{message.text} ({message.location['url']})")

    def note_uncaught(error: Error) -> None:
        errors.append(str(error))

    page.on("console", note)
    page.on("pageerror", note_uncaught)
    yield page
    page.remove_listener("console", note)
    page.remove_listener("pageerror", note_uncaught)
    assert errors == []


def is_own(message: ConsoleMessage) -> bool:
    """Whether a message is an error of the page: a script, the content policy, or a missing file.

    The browser also logs each failed request; those to the API are tested by what the page shows.
    """
    is_expected = "/v1/" in message.location["url"] or "ERR_INTERNET_DISCONNECTED" in message.text
    return message.type == "error" and not (
        message.text.startswith("Failed to load resource") and is_expected
    )


def visit(page: Page, link: str = "/") -> None:
    """Open a link of the page, and wait until its scripts have started."""
    page.goto(link)
    page.wait_for_selector("body[data-ready]")


def is_search(response: Response) -> bool:
    """Whether a response answers a search."""
    return response.url.endswith("/v1/search")


def search(page: Page, words: str) -> dict:
    """Type words and press Enter; returns the endpoint's answer, which the page shows."""
    with page.expect_response(is_search) as response:
        page.fill("#words", words)
        page.press("#words", "Enter")
    return shown(page, response.value)


def upload(page: Page, *files: Path) -> dict:
    """Choose files; returns the endpoint's answer, which the page shows."""
    with page.expect_response(is_search) as response:
        page.set_input_files("#file", files)
    return shown(page, response.value)


def shown(page: Page, response: Response) -> dict:
    """The answer of a search, once the page shows it."""
    answer = response.json()
    assert response.status == 200, answer
    page.wait_for_selector("#results[aria-busy=false] .side")
    return answer


def hits(page: Page, domain: str = "") -> Locator:
    """The tiles of a domain, or all."""
    return page.locator(f".hit[data-domain={domain}]" if domain else ".hit")


def ids(page: Page) -> list[str]:
    """Ids of the hits on the page, in their order."""
    return page.eval_on_selector_all(".hit", "tiles => tiles.map(tile => tile.dataset.id)")


def expect_picture(image: Locator) -> None:
    """Wait until an image is shown; fail if it is broken."""
    image.evaluate("image => image.decode()")


def dropped(page: Page, file: Path, content_type: str) -> object:
    """A `DataTransfer` with a file, as a drop or a paste has."""
    return page.evaluate_handle(
        """([name, type, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type}));
            return transfer;
        }""",
        [file.name, content_type, list(file.read_bytes())],
    )
