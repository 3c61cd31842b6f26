"""Model soups: the mean of the weights of several checkpoints, as one network.

After Wortsman et al. (ICML 2022). It costs nothing at inference, unlike an ensemble, and works for
checkpoints that share a stretch of training; of others the mean is no network worth having, which
its figures on `calib` show at once. Statistics of batch norm are averaged like weights.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from contract import metrics
from contract.errors import UserError
from contract.files import write_json_atomic
from contract.manifest import Manifest
from contract.provenance import commit_of_this_project
from contract.validation import explain
from trainer.checkpoint import Trained, open_trained, save_weights
from trainer.config import PREPARATION, TrainConfig
from trainer.data.cache import packed_faces
from trainer.phase_files import override
from trainer.predict import predict
from trainer.reliability import temperature_or_one

MOST_SERVINGS = 10
LEAST_GAIN = 5e-4
"""What another serving must take off the NLL, in nats; less is noise of a few thousand rows."""
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Tried:
    """A step of the search: what went in so far, and the NLL on calib at its temperature."""

    counts: tuple[int, ...]
    nll: float


def mix(states: Sequence[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of networks' states; whole numbers, such as counters, are the first's.

    Raises `ValueError` where the weights do not sum to something positive.
    """
    total = float(sum(weights))
    if not total > 0 or min(weights) < 0:
        raise ValueError("weights of a soup are not negative, and not all 0")
    mixed = {}
    for name, first in states[0].items():
        if not first.is_floating_point():
            mixed[name] = first.clone()
            continue
        parts = (
            state[name].double() * (weight / total)
            for state, weight in zip(states, weights, strict=True)
            if weight
        )
        mixed[name] = torch.stack(list(parts)).sum(0).to(first.dtype)
    return mixed


def search(count: int, loss: Callable[[tuple[int, ...]], float]) -> list[Tried]:
    """Servings of each of `count` checkpoints, added one at a time while it pays.

    It begins with the best one alone; each step adds the checkpoint, possibly one that is in
    already, that lowers the loss most, by `LEAST_GAIN` at least and up to `MOST_SERVINGS` in all
    (selection with replacement, Caruana et al., ICML 2004, of weights in place of answers). The
    last step is the choice.
    """

    def best_of(many: list[tuple[int, ...]]) -> Tried:
        return min((Tried(counts, loss(counts)) for counts in many), key=lambda each: each.nll)

    def with_one_more(counts: tuple[int, ...]) -> list[tuple[int, ...]]:
        more = [tuple(n + (k == i) for k, n in enumerate(counts)) for i in range(count)]
        # Twice the only one there is, is that one again.
        return [each for each in more if np.count_nonzero(each) > 1]

    steps = [best_of([tuple(int(k == i) for k in range(count)) for i in range(count)])]
    while sum(steps[-1].counts) < MOST_SERVINGS and (more := with_one_more(steps[-1].counts)):
        step = best_of(more)
        if step.nll > steps[-1].nll - LEAST_GAIN:
            break
        steps.append(step)
    return steps


def check_alike(files: Sequence[Path], configs: Sequence[TrainConfig]) -> None:
    """Raise `UserError` unless all are of one network and see the same input."""
    first = configs[0]
    # What neither the weights nor the faces of a data set depend on may differ.
    aside = {
        "network": {"checkpoint_blocks", "dropout", "pretrained"},
        "input": {"crop"},
    }
    for file, other in zip(files[1:], configs[1:], strict=True):
        for what, mine, its in (
            ("network", first.model, other.model),
            ("input", first.input, other.input),
        ):
            if mine.model_dump(exclude=aside[what]) != its.model_dump(exclude=aside[what]):
                raise UserError(
                    f"{file}: another {what} than {files[0]}; only checkpoints of one "
                    "network and input have a mean"
                )


def prepared(config: TrainConfig, sets: Sequence[str]) -> TrainConfig:
    """The config with `key=value` overrides of how faces are prepared.

    Raises `UserError` for any other key, and for a wrong value.
    """
    content = config.model_dump(mode="json")
    for assignment in sets:
        key = assignment.partition("=")[0].strip().split(".")
        if len(key) < 2 or key[0] != "input" or key[1] not in PREPARATION:
            known = " ".join(f"input.{name}" for name in sorted(PREPARATION))
            raise UserError(f"--set {assignment}: of a soup only these can be set: {known}")
        override(content, assignment)
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise explain(error, TrainConfig, "--set") from None


def _parts(name: str, share: float, trained: Trained) -> list[dict[str, Any]]:
    """What an ingredient adds to the list of a soup: itself, or what it was mixed of."""
    own = json.loads(trained.about.get("soup", "[]")) or [
        {"name": name, "share": 1, "sha256": trained.sha256}
    ]
    return [{**part, "share": round(share * part["share"], 4)} for part in own]


def make_soup(
    ingredients: Sequence[Trained], names: Sequence[str], manifest: Manifest, folder: Path,
    weights: Sequence[float] | None, sets: Sequence[str] = (),
) -> tuple[Trained, list[Tried]]:  # fmt: skip
    """The soup as a run folder's best checkpoint, opened again, and the steps of the search.

    Without `weights` they are searched on `calib`. Its config is that of the checkpoint with the
    largest share, with the `key=value` of `sets` for how faces are prepared. Raises `UserError`
    where checkpoints do not go together, the manifest has no calib rows, a key is another's, or the
    folder holds something else.
    """
    configs = [prepared(each.config, sets) for each in ingredients]
    check_alike([each.file for each in ingredients], configs)
    if (folder / "checkpoints").exists():
        raise UserError(f"{folder} holds a run already; name another with --out")
    calib = np.array([row.split == "calib" for row in manifest.rows])
    if not calib.any():
        raise UserError(f"{manifest.file}: no rows of split 'calib' to weigh checkpoints on")
    faces = torch.from_numpy(packed_faces(manifest, configs[0].input)[calib])
    labels = manifest.labels()[calib]
    states = [{k: v.clone() for k, v in each.model.state_dict().items()} for each in ingredients]
    model = ingredients[0].model

    def loss(counts: Sequence[float]) -> float:
        model.load_state_dict(mix(states, counts))
        logits = predict(model, faces).numpy()
        temperature = temperature_or_one(logits, labels)
        return metrics.nll(labels, metrics.softmax(logits, temperature))

    steps: list[Tried] = []
    chosen = weights
    if chosen is None:
        steps = search(len(states), loss)
        chosen = steps[-1].counts
    shares = [weight / sum(chosen) for weight in chosen]
    model.load_state_dict(mix(states, chosen))
    most = int(np.argmax(shares))
    about = {
        **{key: value for key, value in ingredients[most].about.items() if key != "config"},
        "config": configs[most].model_dump_json(),
        "commit": commit_of_this_project(),
        "soup": json.dumps(
            [
                part
                for name, share, each in zip(names, shares, ingredients, strict=True)
                if share
                for part in _parts(name, share, each)
            ]
        ),
    }
    file = folder / "checkpoints" / "best.safetensors"
    save_weights(file, model, about)
    config = {**configs[most].model_dump(mode="json"), "soup": json.loads(about["soup"])}
    write_json_atomic(folder / "config.json", config)
    return open_trained(folder), steps
