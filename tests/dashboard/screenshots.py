"""`python -m tests.dashboard.screenshots OUT`: the page in light, dark and phone width.

Five minutes of made-up history are put in beforehand, so the charts show what they do on a box that
has been running for a while.
"""

import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.dashboard.fake_edge import FakeEdge, fake_edge, make_kpi
from tests.dashboard.processes import CHROMIUM, CHROMIUM_ARGUMENTS, dashboard

VIEWS = {
    "light": {"viewport": {"width": 1440, "height": 1000}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1440, "height": 1000}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    "phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


def _made_up_history(edge: FakeEdge) -> dict[str, object]:
    now = time.monotonic() - edge.started_s
    points = []
    for age in range(300, 0, -1):
        kpi = make_kpi(now - age)
        points.append(
            {
                "age_s": age,
                "fps": kpi.fps,
                "e2e_p95_ms": kpi.e2e_ms["p95"],
                "cpu_percent": kpi.cpu_percent,
            }
        )
    return {"span_s": 300, "points": points}


def _shoot(browser: Browser, edge: FakeEdge, url: str, out: Path) -> None:
    for name, options in VIEWS.items():
        page = browser.new_page(**options)  # type: ignore[arg-type]
        page.route("**/api/history", lambda route: route.fulfill(json=_made_up_history(edge)))
        page.goto(url)
        page.wait_for_selector('body[data-state="live"] .card')
        page.wait_for_timeout(1500)
        page.screenshot(path=out / f"{name}.png", full_page=True)
        if name == "light":
            page.get_by_role("switch").click()
            page.wait_for_timeout(300)
            page.screenshot(path=out / "confirm.png")
            page.get_by_role("button", name="Show faces").click()
            page.wait_for_timeout(700)
            page.screenshot(path=out / "raw.png", full_page=True)
            page.get_by_role("switch").click()
            edge.kpi_changes = {
                "camera": "lost",
                "notes": ("/dev/video0 is gone since 14:02; waiting for it to come back",),
            }
            edge.people = []
            page.wait_for_timeout(2500)
            page.screenshot(path=out / "camera-lost.png", full_page=True)
            edge.kpi_changes, edge.people = {}, [1, 4]
        page.close()


def main(out: Path) -> None:
    """Write the pictures into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="fer-") as folder,
        fake_edge(Path(folder)) as edge,
        dashboard(Path(folder)) as url,
        dashboard(Path(folder), FER_DASHBOARD_TOKEN="shown to nobody") as locked_url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS, headless=True
        )
        _shoot(browser, edge, url, out)
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.goto(locked_url)
        page.screenshot(path=out / "login.png")
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.dashboard.screenshots OUT")
    main(Path(sys.argv[1]))
