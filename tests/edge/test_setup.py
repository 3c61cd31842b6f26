"""What is kept between starts stays within its bound."""

import os
from pathlib import Path

from edge.setup import bound_cache


def test_the_oldest_compiled_models_beyond_the_bound_go(tmp_path: Path) -> None:
    folder = tmp_path / "openvino"
    folder.mkdir()
    for age in range(5):
        blob = folder / f"{age}.blob"
        blob.write_bytes(bytes(100))
        os.utime(blob, (1e9 - age, 1e9 - age))
    (folder / "yunet.json").write_text("{}")
    bound_cache(tmp_path, most_bytes=300)
    assert {file.name for file in folder.iterdir()} == {"0.blob", "1.blob", "2.blob", "yunet.json"}


def test_a_box_without_a_cache_yet_starts(tmp_path: Path) -> None:
    bound_cache(tmp_path / "not there")
