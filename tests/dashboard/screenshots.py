"""Pictures of the page, made by a command.

`python -m tests.dashboard.screenshots OUT` has a made-up box: the page in light, dark and phone
width, and its dialogs. Five minutes of history and an hour are put in beforehand, so the charts
show what they do on a box that has been running for a while.

`python -m tests.dashboard.screenshots --demo docs/screenshot.png` has the real program on the demo
camera, whose two portraits are in the public domain, pixelated, for a minute; `FER_MODELS` names
the folder of the face detector.
"""

import argparse
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from contract.expressions import EXPRESSIONS, UNCERTAIN
from tests.dashboard.fake_edge import FakeEdge, fake_edge, make_kpi
from tests.dashboard.processes import (
    CHROMIUM,
    CHROMIUM_ARGUMENTS,
    ROOT,
    dashboard,
    environment,
)

DEMO_S = 60
DEMO_SIZE = {"width": 1280, "height": 1110}

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
                **{f"e2e_{name}_ms": value for name, value in kpi.e2e_ms.items()},
                "flips_per_minute": kpi.flips_per_minute,
                "drops": sum(kpi.drops.values()),
                "cpu_percent": kpi.cpu_percent,
                "rss_mb": kpi.rss_mb,
                "temperature_c": kpi.temperature_c,
            }
        )
    return {"span_s": 300, "points": points}


def _made_up_hour() -> dict[str, object]:
    shares = dict(zip(EXPRESSIONS, (3, 0, 1, 22, 6, 4, 40), strict=True)) | {UNCERTAIN: 9}
    minutes = [
        {
            "age_min": age,
            "seconds": {
                label: share * (1 + math.sin(age / 7 + i))
                for i, (label, share) in enumerate(shares.items())
            },
        }
        for age in range(59, -1, -1)
    ]
    return {"span_min": 60, "minutes": minutes}


def _shoot(browser: Browser, edge: FakeEdge, url: str, out: Path) -> None:
    for name, options in VIEWS.items():
        page = browser.new_page(**options)  # type: ignore[arg-type]
        page.route("**/api/history", lambda route: route.fulfill(json=_made_up_history(edge)))
        page.route("**/api/hour", lambda route: route.fulfill(json=_made_up_hour()))
        page.goto(url)
        page.wait_for_selector('body[data-state="live"] .card')
        page.wait_for_timeout(1500)
        page.screenshot(path=out / f"{name}.png", full_page=True)
        if name == "light":
            page.get_by_role("button", name="That is wrong").first.click()
            page.wait_for_timeout(300)
            page.screenshot(path=out / "correct.png")
            page.keyboard.press("Escape")
            page.get_by_role("switch", name="Pixelate").click()
            page.wait_for_timeout(300)
            page.screenshot(path=out / "confirm.png")
            page.get_by_role("button", name="Show faces").click()
            page.wait_for_timeout(700)
            page.screenshot(path=out / "raw.png", full_page=True)
            page.get_by_role("switch", name="Pixelate").click()
            edge.kpi_changes = {
                "camera": "lost",
                "notes": ("/dev/video0 is gone since 14:02; waiting for it to come back",),
            }
            edge.people = []
            page.wait_for_timeout(2500)
            page.screenshot(path=out / "camera-lost.png", full_page=True)
            edge.kpi_changes, edge.people = {}, [1, 4]
        page.close()


def shoot_demo(file: Path) -> None:
    """Write a picture of what the first command of the README shows."""
    models = {name: os.environ[name] for name in ("FER_MODELS",) if name in os.environ}
    command = [sys.executable, "-m", "edge", "--camera", "demo", "--port", "0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [*command, "--session-dir", folder], cwd=ROOT, env=environment(**models),
            stderr=subprocess.PIPE, text=True,
        ) as program,
        sync_playwright() as playwright,
    ):  # fmt: skip
        assert program.stderr is not None
        url = next(line.split()[-1] for line in program.stderr if "dashboard: http" in line)
        # Nobody reads on, and a full pipe would stop the program.
        threading.Thread(target=program.stderr.read, daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS, headless=True
        )
        page = browser.new_page(viewport=DEMO_SIZE, color_scheme="light")
        page.goto(url)
        page.wait_for_selector('body[data-state="live"] .card')
        page.wait_for_timeout(DEMO_S * 1000)
        file.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=file)
        browser.close()
        program.send_signal(signal.SIGTERM)


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
    parser = argparse.ArgumentParser(prog="python -m tests.dashboard.screenshots")
    parser.add_argument("out", type=Path, help="folder for the pictures; with --demo, a .png file")
    parser.add_argument("--demo", action="store_true", help="the real program on the demo camera")
    given = parser.parse_args()
    (shoot_demo if given.demo else main)(given.out)
