"""Committed result files can be traced to a command, a commit and a host, and hold the figures."""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.model_page import page
from benchmarks.near_copies import seen_nearly
from contract.manifest import read_manifest

FILES = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.json"))
RUN = {"command", "date_utc", "commit", "cpu", "cores", "threads", "python", "packages"}
FIGURES = {
    "fer-edge evaluate": {
        "n", "protocol", "accuracy", "macro_f1", "per_class_f1", "nll", "brier", "ece",
        "adaptive_ece", "classwise_ece", "temperature", "by_source", "precision", "bundle",
    },
    "python benchmarks/manifest_validation.py": {"rows", "wall_s", "peak_rss_mb"},
    "python benchmarks/training_throughput.py": {
        "images_per_s", "trainer_over_timm", "trainer_over_timm_channels_last",
        "trainer_over_ready", "rounds", "precision",
    },
    "python benchmarks/int8_speed.py": {
        "latency_ms", "speed_up", "openvino_default_precision", "input", "bundles", "rounds",
    },
    "python benchmarks/rivals.py": {
        "contenders", "ratios", "clips", "frames_per_round", "rounds", "bundle", "detector",
    },
    "python benchmarks/dashboard_load.py": {
        "e2e_ms", "p99_rise_ms", "p99_ratio", "control_ms", "answers", "streams", "client_cpu_s",
        "footprint",
    },
    "python benchmarks/capture_recovery.py": {
        "cycles", "kills", "stops", "device_back_s", "sigkill_s", "sigstop_s", "hand_over_ms",
        "footprint", "left_behind", "drops", "events",
    },
    "python benchmarks/scenes.py": {
        "n", "missed", "given", "found", "difference_points", "difference_interval", "bundle",
    },
    "python benchmarks/robustness.py": {"n", "unspoilt", "ways", "bundle", "manifest_sha256"},
    "python benchmarks/brightening.py": {
        "n", "lights", "darker_share", "every", "bundle", "manifest_sha256",
    },
    "python benchmarks/rare_classes.py": {
        "n", "rows_of", "tau", "thresholds", "ways", "bundle", "manifest_sha256",
    },
    "python benchmarks/near_copies.py": {
        "all", "seen_nearly", "seen_nearly_rows", "rest", "bundle", "backend", "manifest_sha256",
    },
    "python benchmarks/serial_link.py": {"random", "bad_line", "flips", "agreement", "replug"},
    "python benchmarks/smoothing.py": {
        "settings", "tried", "max_lag_s", "tune", "report", "clips", "sessions", "bundle",
        "detector",
    },
    "python benchmarks/fleet.py": {
        "boxes", "seconds", "outage_s", "connected_s", "delivery_ms", "steady", "broker", "outage",
        "links_cpu_percent_per_box",
    },
    "python benchmarks/soak.py": {
        "frames", "lost", "drops", "e2e_ms", "first_e2e_ms", "last_e2e_ms", "slope_mb_h",
        "tree_pss_mb", "cpu_percent", "stolen_s", "minutes",
    },
    "fer-edge bench": {
        "frames", "e2e_ms", "stages_ms", "fps", "cpu_s_per_1000_frames", "peak_rss_mb",
        "first_result_s", "face_rate", "detections_run", "bundle",
    },
}  # fmt: skip

PROJECT = Path(__file__).parents[1]


def test_the_page_of_the_model_is_what_the_results_give() -> None:
    assert page() == (PROJECT / "docs/model.md").read_text(encoding="utf-8"), (
        "measure the built-in bundle anew, then PYTHONPATH=. python benchmarks/model_page.py"
    )


def test_the_page_of_the_fleet_quotes_its_result() -> None:
    text = (PROJECT / "docs/fleet.md").read_text(encoding="utf-8")
    (name,) = re.findall(r"benchmarks/([\d-]+-fleet\.json)", text)
    found = json.loads((PROJECT / "benchmarks" / name).read_text())
    quoted = next(line for line in text.splitlines() if line.startswith("> "))
    assert re.findall(r"\d+(?:\.\d+)?", quoted) == [
        str(found["boxes"]),
        f"{found['delivery_ms']['p50']:.0f}", "99", f"{found['delivery_ms']['p99']:.0f}",
        f"{found['broker']['cpu_percent']:.1f}", f"{found['broker']['rss_mb']:.0f}",
        str(found["outage"]["events"]), f"{found['outage_s']:.0f}", str(found["outage"]["heard"]),
    ]  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_result_file_says_how_it_was_made(file: Path) -> None:
    result: dict[str, Any] = json.loads(file.read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-[a-z0-9-]+\.json", file.name)
    assert set(result["run"]) >= RUN
    assert re.fullmatch(r"[0-9a-f]{40}", result["run"]["commit"]), "made from a clean checkout"
    kind = next(kind for kind in FIGURES if result["run"]["command"].startswith(kind))
    assert set(result) >= FIGURES[kind]


def test_a_brighter_mirrored_copy_of_a_fitted_face_is_seen_nearly(tmp_path: Path) -> None:
    """And neither a stranger nor the copy of another val face is."""
    rng = np.random.default_rng(3)
    noise = rng.uniform(0, 255, (4, 48, 48))
    first, second, third, fourth = (
        cv2.normalize(cv2.GaussianBlur(one, (0, 0), 3), None, 0, 200, cv2.NORM_MINMAX)
        for one in noise
    )
    rows = [
        ("train", first), ("val", first[:, ::-1] + 40), ("val", second), ("calib", third),
        ("val", third + 5), ("val", second + 30), ("test", fourth), ("val", fourth),
    ]  # fmt: skip
    lines = ["path,label,split,source"]
    for number, (split, face) in enumerate(rows):
        cv2.imwrite(str(tmp_path / f"{number}.png"), face.astype(np.uint8))
        lines.append(f"{number}.png,happy,{split},made")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert seen_nearly(manifest).tolist() == [True, False, True, False, False]
