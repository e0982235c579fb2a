"""One Chromium for the tests of the search page, and one tab for those in English."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.helpers.browser import chromium, opened, visit, without_errors
from tests.helpers.endpoint import Endpoint


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def tab(browser: Browser, endpoint: Endpoint) -> Iterator[Page]:
    with opened(browser, endpoint.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """The search page in English, before the first search."""
    with without_errors(tab):
        visit(tab)
        yield tab
        tab.unroute_all()
        tab.context.set_offline(False)
