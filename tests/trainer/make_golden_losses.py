"""Writes golden_losses.json: every loss worked out by NumPy and SciPy in float64, without torch.

Each formula is written the plain way (probabilities, angles, a class taken out) rather than the way
the trainer computes it. Run `python -m tests.trainer.make_golden_losses` after adding a row.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, rel_entr, softmax
from scipy.stats import entropy

Array = NDArray[np.float64]
FILE = Path(__file__).with_name("golden_losses.json")

STUDENT = [
    [0.3, -1.2, 0.8, 2.1, -0.4, 0.0, 1.1],  # unsure
    [0.1, 0.2, -0.3, 9.5, 0.4, -1.0, 0.6],  # sure, and right
    [6.2, -2.5, 1.4, 0.3, -0.8, 2.2, -4.1],  # sure, and wrong
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # a new head
]
TEACHER = [
    [1.4, -0.6, 0.9, 0.5, 0.2, -1.7, 2.3],
    [-2.0, -1.5, -1.0, 12.0, 0.5, 1.0, 0.0],
    [-0.5, 0.7, 3.1, -1.3, 4.0, 0.1, 0.8],
    [2.5, -3.0, 0.4, 1.9, 0.0, -0.7, 5.2],
]
LABELS = [6, 3, 4, 0]
TARGETS = [
    [0.1, 0.0, 0.0, 0.3, 0.0, 0.0, 0.6],
    [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
    [0.0, 0.2, 0.3, 0.0, 0.5, 0.0, 0.0],
    [0.94, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01],
]
COMPLEMENTARY = [3, 0, 0, 6]  # likely; unlikely; wrong and sure of it; no idea
MARGINS = [(0.35, 30.0), (0.5, 64.0), (0.0, 30.0)]


def cross_entropy_rows(logits: Array, targets: Array) -> Array:
    return np.asarray(-(targets * log_softmax(logits, axis=1)).sum(1))


def kd(student: Array, teacher: Array, temperature: float) -> Array:
    p, q = softmax(teacher / temperature, axis=1), softmax(student / temperature, axis=1)
    return np.asarray(temperature**2 * rel_entr(p, q).sum(1))


def dkd_parts(
    student: Array, teacher: Array, labels: NDArray[np.int64], temperature: float
) -> tuple[Array, Array]:
    tckd, nckd = [], []
    for s, t, label in zip(student / temperature, teacher / temperature, labels, strict=True):
        q, p = softmax(s)[label], softmax(t)[label]
        tckd.append(rel_entr(p, q) + rel_entr(1 - p, 1 - q))
        others = softmax(np.delete(t, label)), softmax(np.delete(s, label))
        nckd.append(rel_entr(*others).sum())
    return temperature**2 * np.array(tckd), temperature**2 * np.array(nckd)


def focal_weight(student: Array, targets: Array, gamma: float) -> Array:
    return np.asarray((1 - (targets * softmax(student, axis=1)).sum(1)) ** gamma)


def negative(
    logits: Array, labels: list[int], complementary: list[int], temperature: float
) -> Array:
    """−log(1 − p), with the label taken out of the softmax first where there is one (not −1)."""
    losses = []
    for z, label, c in zip(logits / temperature, labels, complementary, strict=True):
        kept = [k for k in range(len(z)) if k != label]
        losses.append(-np.log1p(-softmax(z[kept])[kept.index(c)]))
    return np.array(losses)


def attention_map(feature_map: Array, grid: int) -> Array:
    energy = (feature_map**2).mean(1)
    height, width = energy.shape[1:]
    maps = []
    for i in range(grid):
        for j in range(grid):
            # The cells of adaptive pooling: from ⌊i·h/g⌋ up to ⌈(i + 1)·h/g⌉.
            rows = slice(i * height // grid, -(-(i + 1) * height // grid))
            columns = slice(j * width // grid, -(-(j + 1) * width // grid))
            maps.append(energy[:, rows, columns].mean((1, 2)))
    stacked = np.stack(maps, axis=1)
    return np.asarray(stacked / np.linalg.norm(stacked, axis=1, keepdims=True))


def similarity_preserving(student: Array, teacher: Array) -> float:
    grams = [e @ e.T for e in (student, teacher)]
    a, b = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in grams)
    return float(np.linalg.norm(a - b) ** 2 / len(student) ** 2)


def arcface_logits(
    cosine: Array, labels: NDArray[np.int64], margin: float, scale: float, easy_margin: bool
) -> Array:
    made = cosine.copy()
    for row, label in enumerate(labels):
        theta = np.arccos(cosine[row, label])
        if easy_margin:
            made[row, label] = np.cos(theta + margin) if theta < np.pi / 2 else np.cos(theta)
        elif theta < np.pi - margin:
            made[row, label] = np.cos(theta + margin)
        else:
            made[row, label] = np.cos(theta) - margin * np.sin(np.pi - margin)
    return scale * made


def _rounded(value: Any) -> Any:
    """Lists of numbers with ten figures, as they stand in the file."""
    if isinstance(value, np.ndarray | tuple | list):
        return [_rounded(v) for v in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def rows() -> list[dict[str, Any]]:
    """A row per loss and setting: `loss`, `inputs` and `parameters` by name, `expected`."""
    made: list[dict[str, Any]] = []

    def add(loss: str, inputs: dict[str, Any], expected: Any, **parameters: Any) -> None:
        plain = {key: np.asarray(value).tolist() for key, value in inputs.items()}
        made.append(
            {
                "loss": loss,
                "inputs": plain,
                "parameters": parameters,
                "expected": _rounded(expected),
            }
        )

    student, teacher, targets = np.array(STUDENT), np.array(TEACHER), np.array(TARGETS)
    labels = np.array(LABELS)
    one_hot = np.eye(7)[labels]
    pair = {"student": student, "teacher": teacher}

    expected: Any = cross_entropy_rows(student, targets)
    add("soft_cross_entropy_rows", {"logits": student, "targets": targets}, expected)
    for t in (1.0, 2.0, 4.0):
        add("kd", pair, kd(student, teacher, t), temperature=t)
        expected = dkd_parts(student, teacher, labels, t)
        add("dkd_parts", pair | {"labels": labels}, expected, temperature=t)
    for gamma in (0.0, 0.5, 1.5, 2.0):
        for target in (one_hot, targets):
            row = {"student": student, "targets": target}
            weight = focal_weight(student, target, gamma)
            add("focal_weight", row, weight, gamma=gamma)
            expected = weight * cross_entropy_rows(student, target)
            add("focal_cross_entropy", row, expected, gamma=gamma)
    expected = focal_weight(student, one_hot, 1.5) * dkd_parts(student, teacher, labels, 2)[1]
    add("focal_nckd", pair | {"labels": labels}, expected, temperature=2.0, gamma=1.5)
    expected = (teacher - teacher.mean(1, keepdims=True)) / teacher.std(1, keepdims=True)
    add("standardise", {"logits": teacher}, expected)
    wrong = {"logits": student, "complementary": COMPLEMENTARY}
    add("negative_loss", wrong, negative(student, [-1] * 4, COMPLEMENTARY, 1.0))
    for t in (1.0, 2.0):
        expected = negative(student, LABELS, COMPLEMENTARY, t)
        add("negative_nckd_loss", wrong | {"labels": labels}, expected, temperature=t)
    # Seven equal shares have an entropy of ln 7.
    expected = entropy(softmax(student, axis=1), axis=1)
    add("entropy", {"logits": student}, expected)
    # angry is class 0, disgust class 1, as the expressions are ordered everywhere.
    add(
        "class_alpha",
        {"labels": [0, 1, 2, 3, 4, 5, 6, 0]},
        [0.6, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.6],
        default=0.5,
        per_class={"angry": 0.6, "disgust": 0.4},
    )

    rng = np.random.default_rng(2)
    student_map, teacher_map = rng.normal(size=(2, 2, 4, 6)).round(2), rng.normal(size=(2, 3, 5, 5))
    for grid in (2, 3):
        add(
            "attention_map",
            {"feature_map": student_map},
            attention_map(student_map, grid),
            grid=grid,
        )
    maps = attention_map(student_map, 3).round(6), attention_map(teacher_map, 3).round(6)
    expected = ((maps[0] - maps[1]) ** 2).sum(1)
    add("attention_transfer", {"student_map": maps[0], "teacher_map": maps[1]}, expected)
    embeddings = rng.normal(size=(4, 3)).round(2), rng.normal(size=(4, 5)).round(2)
    add(
        "similarity_preserving",
        {"student_embedding": embeddings[0], "teacher_embedding": embeddings[1]},
        similarity_preserving(*embeddings),
    )
    for margin, scale in MARGINS:
        # The label's angle on both sides of every turn: 0, a right angle, π − m and π.
        turns = np.array([0.02, 0.7, np.pi / 2 - 0.02, np.pi / 2 + 0.02, np.pi - 0.02])
        turns = np.append(turns, np.minimum(np.pi - margin + np.array([-0.01, 0.01]), np.pi - 0.01))
        cosine = rng.uniform(-1, 1, (len(turns), 7)).round(3)
        at = np.arange(len(turns)) % 7
        cosine[np.arange(len(turns)), at] = np.cos(turns).round(6)
        for easy in (False, True):
            expected = arcface_logits(cosine, at, margin, scale, easy)
            add(
                "arcface_logits",
                {"cosine": cosine, "labels": at},
                expected,
                margin=margin,
                scale=scale,
                easy_margin=easy,
            )
    return made


def main() -> None:
    lines = ",\n".join(json.dumps(row) for row in rows())
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
