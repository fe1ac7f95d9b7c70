"""Fixtures of the end-to-end tests."""

from tests.e2e.playground import browser, open_page

__all__ = ["browser", "open_page"]
