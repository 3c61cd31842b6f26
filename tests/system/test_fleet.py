"""A box in a fleet, as a whole: the program, a real broker, what Prometheus reads, and its end."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.dashboard.processes import get
from tests.edge.mqtt_broker import Broker, Listener
from tests.system.commands import running, until

pytestmark = pytest.mark.usefixtures("demo_portraits")


def test_a_box_is_seen_by_broker_and_prometheus_and_missed_when_it_is_killed(
    tmp_path: Path,
) -> None:
    broker = Broker(tmp_path)
    listener = Listener(broker.port, "fer/#", "homeassistant/#")
    profile = tmp_path / "till.toml"
    profile.write_text(
        '[camera]\nsource = "demo"\nfps = 10\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\nbox = "till"\n'
    )
    arguments = ("--profile", profile, "--port", 0, "--no-session")
    with running(*arguments, cache=tmp_path / "cache", cwd=tmp_path) as box:
        assert until(lambda: len(listener.on("fer/till/track/")) >= 2), box.log
        events = [json.loads(payload) for payload in listener.on("fer/till/track/")]
        assert [event["sequence"] for event in events[:2]] == [1, 2]
        assert {event["event"] for event in events[:2]} <= {"appeared", "changed"}
        assert until(
            lambda: any(json.loads(text)["ready"] for text in listener.on("fer/till/state"))
        )
        assert listener.on("homeassistant/device/fer_till/config")

        # The page is a process of its own, and may begin to listen after the broker has heard.
        assert until(lambda: b"\nfer_ready 1.0\n" in get(f"{box.url}/metrics"))
        metrics = get(f"{box.url}/metrics")
        promtool = shutil.which("promtool")
        if promtool is not None:  # the page's own tests say when it is absent
            done = subprocess.run([promtool, "check", "metrics"], input=metrics, timeout=30)
            assert done.returncode == 0
        checks = json.loads(get(f"{box.url}/readyz"))["checks"]
        assert {"name": "mqtt", "ok": True, "reason": "is connected", "critical": False} in checks

        assert b"offline" not in listener.on("fer/till/availability")
        box.stop(signal.SIGKILL)
        assert until(lambda: listener.on("fer/till/availability")[-1:] == [b"offline"], 5.0)
    listener.close()
    broker.stop()
