"""What the dashboard shows of the bundle in use: its card, its figures, where it came from."""

from typing import Any

from contract.bundle import Bundle
from runtime.choose import Chosen

CARD_FILE = "model_card.md"
_ONLY_ON_THE_CARD = {"confusion_matrix", "intervals", "coverage", "by_source"}


def model_card(bundle: Bundle, chosen: Chosen) -> dict[str, Any]:
    """The bundle as JSON: identity, figures by name, provenance, its card as Markdown.

    `latency_ms` is what one face took in the measurement at the start.
    """
    info, card = bundle.info, bundle.folder / CARD_FILE
    figures = {
        name: {key: value for key, value in figure.items() if key not in _ONLY_ON_THE_CARD}
        for name, figure in info.metrics.items()
        if isinstance(figure, dict)
    }
    return {
        "name": info.name,
        "sha256": bundle.sha256,
        "artifact": chosen.artifact.file,
        "precision": chosen.artifact.precision,
        "backend": chosen.session.backend,
        "latency_ms": chosen.latency_ms,
        "input": {"size": info.input.size, "colour": info.input.colour, "clahe": info.input.clahe},
        "temperature": info.temperature,
        "abstain_threshold": info.abstain_threshold,
        "provenance": info.provenance.model_dump(mode="json", include={"commit", "phase", "seed"}),
        "metrics": figures,
        # A bundle from elsewhere need not have one, and opening it has verified what it has.
        "card": card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "",
    }
