"""How bright dark faces should be made before a network sees them.

    PYTHONPATH=. python benchmarks/brightening.py --manifest data/ferplus/argmax/calib.csv \
        --every 3 --json benchmarks/DATE-brightening.json

The faces of a manifest as they are and in poor light (`dark` of `benchmarks/robustness.py`: a share
of the light, and a sensor's noise), each prepared with several values of `input.brighten_to`; 0
leaves them dark. The bundle need not have been trained with any of them.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.asked import about, parser, serving
from benchmarks.robustness import answers, dark, figures, read
from contract.bundle import Bundle
from contract.command import run_command
from contract.faces import prepare_face
from contract.files import write_json_atomic
from contract.manifest import Manifest, read_manifest
from edge.offline.record import run_record
from runtime.session import Session

LIGHTS = (1.0, 0.5, 0.25, 0.12, 0.07)
LEVELS = (0.0, 40.0, 60.0, 80.0, 90.0, 100.0, 128.0)
COMMAND = "benchmarks/brightening.py"


def measure(
    manifest: Manifest, bundle: Bundle, session: Session, every: int, seed: int
) -> dict[str, Any]:
    """The figures of every light at every level, and how bright the faces are."""
    images, labels = read(manifest, every)
    lights: dict[str, dict[str, dict[str, float]]] = {}
    for light in LIGHTS:
        rng = np.random.default_rng(seed)
        seen = images if light == 1 else [dark(image, rng, light) for image in images]
        lights[f"{light:g}"] = {}
        for level in LEVELS:
            face = bundle.info.input.model_copy(update={"brighten_to": level})
            prepared = [prepare_face(image, face) for image in seen]
            p = answers(session, prepared, bundle.info.temperature)
            lights[f"{light:g}"][f"{level:g}"] = figures(labels, p)
    means = [image.mean() for image in images]
    return {
        "n": len(labels),
        "lights": lights,
        "darker_share": {f"{level:g}": float(np.mean(np.less(means, level))) for level in LEVELS},
        "every": every,
        "seed": seed,
        **about(bundle, session),
        "manifest_sha256": manifest.sha256,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises `UserError`."""
    given = parser(COMMAND, __doc__, sampled=True).parse_args(arguments)
    manifest = read_manifest(given.manifest)
    with serving(given) as (bundle, session):
        result = measure(manifest, bundle, session, given.every, given.seed)
    result["run"] = run_record(f"python {COMMAND}", arguments, 1)
    write_json_atomic(given.json, result)
    print("light  " + "".join(f"{level:>8g}" for level in LEVELS))
    for light, levels in result["lights"].items():
        print(f"{light:6} " + "".join(f"{one['accuracy']:8.3f}" for one in levels.values()))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(COMMAND, lambda: main(sys.argv[1:])))
