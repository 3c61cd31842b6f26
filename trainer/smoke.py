"""Any phase in short, to see that it runs: three epochs, in run folders of their own."""

import json

from trainer.config import TrainConfig

EPOCHS = 3


def smoke_overrides(config: TrainConfig) -> list[str]:
    """`key=value` overrides of the short form of a phase.

    Run folders and softlabels go to `smoke` in its folder of runs, where a phase's prerequisites
    are looked for in the same short form. Warm-ups shrink with the epochs, and the gate learns
    often enough to be seen.
    """
    out = config.out / "smoke"
    return [
        f"optim.epochs={EPOCHS}",
        "optim.warmup_epochs=0.3",
        "nested.meta_warmup=1.0",
        "nested.meta_interval=10",
        f"out={json.dumps(str(out))}",
        f"distill.softlabels={json.dumps(str(out / 'softlabels'))}",
    ]
