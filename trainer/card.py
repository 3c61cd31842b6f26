"""The model card, generated from what the bundle records: no figure is typed by hand."""

from contract.bundle import BundleInfo
from contract.card import figures_table

_SOURCES = {
    "ferplus": (
        "FER+ (Barsoum et al., ICMI 2016; labels MIT, Microsoft) on the images of FER2013 "
        "(Kaggle 2013, research use): 48×48 grey faces found on the web, ten votes each. `train` "
        "and `calib` are from Training, without copies of validation and test images; `val` is "
        "PublicTest"
    ),
    "muxspace": (
        "muxspace/facial_expressions (Apache-2.0): press photos and film stills, single labels, "
        "split by person"
    ),
    "fer2013": "FER2013 (Kaggle 2013, research use): 48×48 grey faces, one noisy label each",
    "rafdb": "RAF-DB basic (Li et al., CVPR 2017; research use): aligned faces from the web",
    "rafdb_compound": "RAF-DB compound, each class counted as the emotion it names first",
    "rafml": "RAF-ML (Li & Deng, IJCV 2019; research use): distributions over six expressions",
    "affectnet": "AffectNet (Mollahosseini et al., TAC 2019; research use): faces from the web",
    "expw": "ExpW (Zhang et al., IJCV 2018; research use): faces cut out of photographs",
}


def _soup(info: BundleInfo) -> list[str]:
    parts = info.provenance.detail.get("soup", [])
    told = ", ".join(f"`{part['name']}` {part['share']:.0%}" for part in parts)
    return [f"- Weights: the mean of several checkpoints' ({told})"] if parts else []


def model_card(info: BundleInfo) -> str:
    """Markdown: data, protocol, n, metrics on val, intended use and limits."""
    config = info.provenance.detail["config"]
    rows = info.provenance.detail["rows"]
    lines = [
        f"# {info.name}",
        "",
        "Which of seven expressions a face shows: " + ", ".join(info.expressions) + ".",
        "",
        "## Model",
        "",
        f"- Network: timm `{config['model']['backbone']}`, stem stride "
        f"{config['model']['stem_stride']}, "
        + ("from ImageNet weights" if config["model"]["pretrained"] else "trained from scratch"),
        f"- Input: {info.input.size}×{info.input.size} {info.input.colour}, "
        f"CLAHE {'on' if info.input.clahe else 'off'}, "
        + (
            f"faces darker than {info.input.brighten_to:g} on average brightened to it"
            if info.input.brighten_to
            else "dark faces as they are"
        ),
        f"- Phase `{info.provenance.phase}`, epoch {info.provenance.detail['epoch']} of "
        f"{config['optim']['epochs']} declared (best on `calib`), "
        f"seed {info.provenance.seed}, commit `{info.provenance.commit}`",
        *_soup(info),
        f"- Confidences: softmax at temperature {info.temperature:.3f}, "
        f"{info.provenance.detail['temperature']}; 'uncertain' under {info.abstain_threshold:g}",
        "",
        "## Data",
        "",
        *(f"- {_SOURCES.get(source, source)}." for source in info.provenance.detail["sources"]),
        f"- Trained on {rows['train']} rows (`train`); {rows['calib']} others (`calib`) chose the "
        "epoch and the temperature; `val` was only reported on.",
        f"- Protocol: {config['protocol']}; manifest SHA-256 "
        f"`{info.provenance.manifests['train']}`.",
    ]
    if "val" in info.metrics:
        lines += ["", "## Measured", "", *figures_table({"split": "val", **info.metrics["val"]})]
    lines += [
        "",
        "## Use and limits",
        "",
        "- Made to show what a face in front of a camera looks like to a crowd of annotators. An "
        "expression is not a feeling: do not infer what somebody feels, wants or is.",
        "- Not for decisions about people, nor for emotion inference at work or in education "
        "(prohibited in the EU by the AI Act, Art. 5(1)(f), but for medical or safety reasons).",
        "- Disgust and fear are rare in the data and are recognised worst: see the table.",
        "- Faces in the data are near-frontal web photos of unknown people. Whether it works "
        "equally well across age, skin and sex could not be measured, as the data say nothing "
        "about them; assume that it does not until you have measured it on your people.",
        "- Large head turns, hands over the face, masks and strong side light lower its accuracy; "
        "so do small, blurred and badly cropped faces. `benchmarks/robustness.py` of the project "
        "measures by how much, and `docs/model.md` has the figures of the built-in model.",
        "- Holds weights only: no image of the data set.",
        "",
    ]
    return "\n".join(lines)
