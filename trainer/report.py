"""The study's report, in Markdown and HTML: every figure in it is read from run folders."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import UserError
from contract.expressions import EXPRESSIONS
from contract.files import write_json_atomic, write_text_atomic
from trainer.compare import holm, mcnemar
from trainer.config_criteria import BASELINE, Criterion
from trainer.figures import figures
from trainer.gates import PhaseVerdict, Seeds, Verdict, judge_phase, verdict
from trainer.monitor import warnings
from trainer.plots import plot_run
from trainer.study_runs import StudyRun, same_rows
from trainer.verdict_text import amount, as_json, closing, heading, markdown_table, rows

SHOWN = {
    "macro_f1": "macro-F1",
    "f1_angry": "angry F1",
    "minority_f1": "minority F1",
    "accuracy": "accuracy",
    "ece_scaled": "ECE",
    "ece_raw": "ECE raw",
    "brier": "Brier",
    "nll": "NLL",
}
DIFFERENCES = {
    "macro_f1": Criterion(measure="macro_f1", versus=(BASELINE,), at_least=0.0),
    "f1_angry": Criterion(measure="f1_angry", versus=(BASELINE,), at_least=0.0),
    "ece_scaled": Criterion(measure="ece_scaled", versus=(BASELINE,), at_most=0.0),
}
COMBINATIONS = (
    ("nl_negl_kd", "nl_kd", "negl_tier1"),
    ("nl_negl_dkd", "nl_kd", "negl_dkd"),
)
"""Both methods together, NL alone, NegL alone."""

DIGITS = 12
"""Significant digits of a stored figure: sums differ after them from one CPU's instructions to
another's, and the same runs must give the same file."""

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px }
th, td { border: 1px solid #ccc; padding: .25rem .5rem } img { max-width: 100% }
"""


@dataclass(frozen=True)
class Study:
    """Finished runs by phase and seed, what is not finished, and what the report is called."""

    title: str
    pool: Mapping[str, Seeds]
    unfinished: tuple[str, ...]
    split: str
    seed: int

    @property
    def runs(self) -> list[StudyRun]:
        """All runs, phase by phase."""
        return [run for seeds in self.pool.values() for run in seeds.values()]

    @property
    def baseline(self) -> str:
        """The phase that most phases name as their baseline, if its runs are there."""
        named = [run.study.baseline for run in self.runs if run.study.baseline in self.pool]
        return max(dict.fromkeys(named), key=named.count, default="")


def mean_sd(values: Sequence[float], digits: int = 4) -> str:
    """`mean ± sd` (of the sample), or the value where there is one."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def _figures(study: Study) -> dict[str, dict[int, dict[str, float]]]:
    return {
        phase: {
            seed: {**figures(run.answers), "temperature": run.predictions.temperature}
            for seed, run in seeds.items()
        }
        for phase, seeds in study.pool.items()
    }


def _summary(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> list[list[str]]:
    table = [["phase", "seeds", *SHOWN.values(), "T*"]]
    for phase, seeds in found.items():
        cells = [mean_sd([each[name] for each in seeds.values()]) for name in SHOWN]
        temperature = mean_sd([each["temperature"] for each in seeds.values()], 3)
        table.append([phase, str(len(seeds)), *cells, temperature])
    return table


def _per_class(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> list[list[str]]:
    table = [["F1", *EXPRESSIONS]]
    for phase, seeds in found.items():
        cells = [mean_sd([each[f"f1_{name}"] for each in seeds.values()]) for name in EXPRESSIONS]
        table.append([phase, *cells])
    return table


def _mcnemar(one: StudyRun, other: StudyRun) -> tuple[int, int, float]:
    """Rows only the first got right, rows only the second did, and the exact p."""
    right, own = (
        run.answers.scaled.argmax(axis=1) == run.predictions.labels for run in (one, other)
    )
    first, second = int((right & ~own).sum()), int((own & ~right).sum())
    return first, second, mcnemar(first, second)


def _change(each: Verdict) -> str:
    if each.measured is None:
        return f"– (needs {', '.join(each.missing)})"
    text = amount(each.criterion, each.measured)
    if each.interval is None:
        return text
    low, high = (amount(each.criterion, end) for end in each.interval)
    return f"{text} [{low}, {high}]"


def _against(study: Study, base: str) -> list[list[str]]:
    """Each phase minus the baseline, and McNemar's test for each seed, Holm's over the phases."""
    others = [phase for phase in study.pool if phase != base]
    tests: dict[str, list[str]] = {phase: [] for phase in others}
    for seed, first in study.pool[base].items():
        there = [phase for phase in others if seed in study.pool[phase]]
        found = [_mcnemar(first, study.pool[phase][seed]) for phase in there]
        adjusted = holm([p for *_, p in found])
        for phase, (a, b, p), p_holm in zip(there, found, adjusted, strict=True):
            tests[phase].append(f"{seed}: {a}, {b}, p {p:.3g}, Holm {p_holm:.3g}")
    table = [[f"minus {base}", *(SHOWN[name] for name in DIFFERENCES), "right: it alone, this"]]
    for phase in others:
        made = [
            verdict(name, criterion, study.pool[phase], study.pool, base, study.seed)
            for name, criterion in DIFFERENCES.items()
        ]
        table.append([phase, *map(_change, made), "; ".join(tests[phase]) or "–"])
    return table


def _combined(study: Study) -> list[tuple[tuple[str, str, str], Verdict, Verdict]]:
    """For both methods together: F1 over the better of the two alone, ECE under the better."""
    made = []
    for both, nl, negl in COMBINATIONS:
        if not all(study.pool.get(phase) for phase in (both, nl, negl)):
            continue
        f1 = Criterion(measure="macro_f1", versus=(nl, negl), at_least=0.0)
        ece = Criterion(measure="ece_scaled", versus=(nl, negl), at_most=0.0)
        f1_found, ece_found = (
            verdict(name, each, study.pool[both], study.pool, "", study.seed)
            for name, each in (("ΔF1", f1), ("ΔECE", ece))
        )
        made.append(((both, nl, negl), f1_found, ece_found))
    return made


def _synergy(study: Study) -> list[str]:
    made = _combined(study)
    if not made:
        return ["The runs of both methods and of each alone are not all there."]
    words = {"pass": "yes", "fail": "no", "undecided": "undecided"}
    table = [
        ["both", "NL alone", "NegL alone", "ΔF1 vs max", "better", "ΔECE vs min", "lower"]
    ]  # fmt: skip
    for phases, f1, ece in made:
        cells = [f"{_change(f1)} ({f1.versus})", words[f1.status]]
        cells += [f"{_change(ece)} ({ece.versus})", words[ece.status]]
        table.append([*phases, *cells])
    return markdown_table(table)


def _training(study: Study) -> list[list[str]]:
    table = [["run", "epochs", "hours", "largest gradient norm", "peak memory, MB", "commit"]]
    for run in study.runs:
        lines = run.history

        def most(key: str, lines: Sequence[Mapping[str, float]] = lines) -> str:
            values = [line[key] for line in lines if key in line]
            return f"{max(values):.4g}" if values else "–"

        hours = sum(line.get("seconds", 0.0) for line in lines) / 3600
        cells = [str(len(lines)), f"{hours:.2f}", most("grad_norm_max"), most("peak_memory_mb")]
        table.append([run.folder.name, *cells, run.commit[:12]])
    return table


def _trouble(study: Study) -> list[str]:
    """What the monitoring signals said, run by run."""
    found = [
        f"- {run.folder.name}, epoch {count}: {told}"
        for run in study.runs
        for count in range(1, len(run.history) + 1)
        for told in warnings(run.history[:count])
    ]
    return ["", "Signs of trouble on the way:", "", *found] if found else []


def _about(study: Study) -> list[str]:
    p = study.runs[0].predictions
    seeds = sorted({run.seed for run in study.runs})
    commits = sorted({run.commit for run in study.runs})
    lines = [
        f"Split {study.split}, protocol {p.protocol}, n = {len(p)}, manifest "
        f"{p.manifest_sha256}; seeds {', '.join(map(str, seeds))}; trained by commit "
        f"{', '.join(commits)}. Temperatures were fitted on calib. ECE is after temperature "
        "scaling; before it, it is called raw.",
        "",
        "± is the standard deviation over seeds. In brackets stand 95 % intervals: Student's t "
        "over seeds where there are several, else a paired bootstrap over the rows "
        f"(seed {study.seed}). A verdict is undecided where the interval holds the bound.",
    ]
    if study.unfinished:
        lines += ["", f"Not finished, and not in here: {', '.join(study.unfinished)}."]
    return lines


def _verdict_section(found: PhaseVerdict, split: str) -> list[str]:
    lines = ["", f"### {found.phase}: {found.status}", "", f"{heading(found, split)}.", ""]
    lines += [*markdown_table(rows(found)), ""]
    return lines + [f"- {line}" for line in closing(found)]


def _pictures(study: Study, out: Path) -> list[str]:
    """Draw the first seed of each phase into `out`; the lines that show them."""
    lines = []
    for phase, seeds in study.pool.items():
        run = next(iter(seeds.values()))
        if not run.history:
            continue
        folder = f"figures/{phase}-seed{run.seed}"
        plot_run(out / folder, run.history, run.predictions)
        lines += ["", f"### {phase}, seed {run.seed}", ""]
        for name, what in (
            ("reliability", "reliability diagram"),
            ("confusion", "confusion matrix"),
            ("curves", "learning curves"),
        ):
            lines.append(f"![{what} of {phase}]({folder}/plots/{name}.png)")
    return lines


def as_html(text: str, title: str) -> str:
    """A page of the Markdown. Raises `UserError` where the package for it is not installed."""
    try:
        from markdown import markdown  # type: ignore[import-untyped]
    except ImportError:
        raise UserError(
            "'markdown' is not installed; install it with: pip install 'fer-edge[trainer]'"
        ) from None
    body = markdown(text, extensions=["tables"], output_format="html")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>\n{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def write_report(study: Study, out: Path, command: str) -> list[PhaseVerdict]:
    """Write report.md, report.html, study.json and figures/ into `out`; returns the verdicts.

    `command` is the call that made it. The same runs give the same bytes, pictures aside. Raises
    `UserError` for runs that answered different rows.
    """
    same_rows(study.runs)
    found, base = _figures(study), study.baseline
    verdicts = [
        judge_phase(phase, study.pool, study.seed)
        for phase, seeds in study.pool.items()
        if (first := next(iter(seeds.values())).study).criteria or first.indicators
    ]
    lines = [f"# {study.title}", "", *_about(study), "", "## In short", ""]
    lines += [f"- {each.phase}: {each.status}. {closing(each)[0]}" for each in verdicts]
    lines += ["", "## Results", "", *markdown_table(_summary(found))]
    lines += ["", "## Each class", "", *markdown_table(_per_class(found))]
    if base:
        lines += ["", f"## Against {base}", "", *markdown_table(_against(study, base))]
        lines += [
            "",
            "The last column is McNemar's exact test, a seed at a time: rows that the baseline "
            "alone got right, rows that this phase alone did, p, and p after Holm's correction "
            "over the phases.",
        ]
    lines += ["", "## NL and NegL together", "", *_synergy(study), "", "## Verdicts"]
    for each in verdicts:
        lines += _verdict_section(each, study.split)
    lines += ["", "## Training", "", *markdown_table(_training(study))]
    lines += [*_trouble(study), "", "## Pictures"]
    lines += _pictures(study, out)
    lines += ["", f"Written by `{command}`."]
    text = "\n".join(lines) + "\n"
    write_text_atomic(out / "report.md", text)
    write_text_atomic(out / "report.html", as_html(text, study.title))
    p = study.runs[0].predictions
    stored = {
        "title": study.title, "split": study.split, "protocol": p.protocol, "n": len(p),
        "manifest_sha256": p.manifest_sha256, "unfinished": list(study.unfinished),
        "figures": found, "verdicts": [as_json(each) for each in verdicts],
        "command": command,
    }  # fmt: skip
    write_json_atomic(out / "study.json", _finite(stored))
    return verdicts


def _finite(value: Any) -> Any:
    """JSON values: NaN becomes null, keys strings, numbers end where CPUs begin to disagree."""
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
