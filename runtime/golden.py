"""The golden check: does this artifact, on this CPU, still answer as the float model did?

INT8 arithmetic differs between CPU generations and library versions, so it runs at every start.
"""

import math

import numpy as np

from contract.bundle import Artifact, Bundle, golden_inputs
from contract.metrics import softmax
from runtime.errors import GoldenError
from runtime.session import Session


def measure(session: Session, bundle: Bundle) -> float:
    """Mean |Δp| over the seven probabilities of every golden input, at the bundle's temperature.

    Infinite where an answer is not a finite number. Inputs go in one at a time, as most frames have
    one face. Raises `SessionError` for a runtime that fails.
    """
    golden = np.asarray(bundle.info.golden.logits, np.float64)
    faces = golden_inputs(bundle.info.golden.seed, len(golden), bundle.info.input)
    logits = np.concatenate([session.run(face[None]) for face in faces])
    if not np.isfinite(logits).all():
        return math.inf
    temperature = bundle.info.temperature
    return float(np.abs(softmax(logits, temperature) - softmax(golden, temperature)).mean())


def check(session: Session, bundle: Bundle, artifact: Artifact) -> float:
    """`measure`, refused where it is above the artifact's tolerance.

    Raises `GoldenError` for other answers and `SessionError` for a runtime that fails.
    """
    error = measure(session, bundle)
    if not error <= artifact.tolerance:
        raise GoldenError(
            f"{artifact.file} on {session.backend}: golden check failed, "
            f"mean |Δp| {error:.4f} is above {artifact.tolerance:.4f}"
        )
    return error
