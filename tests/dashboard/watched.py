"""A page in the browser, together with what it said and asked for."""

from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect


class Watched:
    """A page, what its console said, and which hosts it asked."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))


def live(watched: Watched, url: str) -> Page:
    """The page at `url`, once it shows the box."""
    watched.page.goto(url)
    expect(watched.page.locator("#connection")).to_have_text("Live")
    return watched.page


def grave(page: Page, *rules: str) -> list[Any]:
    """What axe-core holds to be serious or critical; by `rules` alone, where there are any."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = list(rules)
    found = Axe().run(page, options=options).response["violations"]
    return [
        (violation["id"], [node["target"] for node in violation["nodes"]])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
