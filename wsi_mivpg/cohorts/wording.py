"""The words of a virtual biopsy report, and the vocabulary to read them back.

Text only: what is true of a slide comes from `virtual.py`; what a model wrote is read by `evaluation/fields.py`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

FINDING_PHRASES: dict[str, tuple[str, ...]] = {
    "adenocarcinoma": ("adenocarcinoma", "gland-forming adenocarcinoma", "invasive adenocarcinoma"),
    "squamous_cell_carcinoma": (
        "squamous cell carcinoma",
        "keratinising squamous cell carcinoma",
        "invasive squamous cell carcinoma",
    ),
    "lymphoid_infiltrate": (
        "dense lymphoid infiltrate",
        "dense lymphoid infiltrate without tumour",
        "lymphoid infiltrate, no carcinoma",
    ),
    "necrosis": ("necrosis", "necrotic tissue without viable tumour", "extensive necrosis, no viable tumour"),
    "benign": ("no evidence of malignancy", "negative for malignancy", "no tumour identified"),
}
"""Finding key -> the phrases that name it. The first is the plain one."""

FINDING_OF_LABEL: dict[str, str] = {
    "glandular_tumour": "adenocarcinoma",
    "keratinising_tumour": "squamous_cell_carcinoma",
    "lymphoid": "lymphoid_infiltrate",
    "necrosis": "necrosis",
}
"""Tissue label -> the finding that it makes when it is the main region."""

NEIGHBOUR_PHRASES: dict[str, str] = {
    "parenchyma": "normal lung",
    "stroma": "fibrous stroma",
    "lymphoid": "lymphoid aggregate",
    "necrosis": "necrotic debris",
}
"""Tissue label -> how a report names it beside the main finding."""

_HEADERS = ("{organ}, {procedure}: ", "{organ} ({procedure}): ", "{organ}, {procedure}; ")
_EXTENTS = (
    "involving approximately {p}% of the tissue",
    "occupying about {p}% of the tissue",
    "in {p}% of the sampled tissue",
)
_FOCI_ONE = ("as a single focus", "in 1 focus")
_FOCI_MANY = ("in {n} foci", "as {n} separate foci")
_NEIGHBOURS = ("adjacent to {x}", "bordering {x}", "next to {x}")
_BENIGN_TAILS = ("{Base} only.", "The tissue consists of {base}.", "{Base} throughout.")


def rounded_extent(extent_percent: float) -> int:
    """Round an extent in percent to the nearest 5, at least 5, as a report states it."""
    return max(5, 5 * round(extent_percent / 5))


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def stated_fields(truth: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report of this truth states, as the shipped schema `virtual-biopsy` names it; None: nothing of it.

    `truth` has the keys that `write_report` needs.
    """
    is_lesion = truth["finding"] != "benign"
    beside = [phrase for label, phrase in NEIGHBOUR_PHRASES.items() if label in truth["touches"]] if is_lesion else []
    return {
        "organ": truth["organ"],
        "procedure": truth["procedure"],
        "diagnosis": FINDING_PHRASES[truth["finding"]][0],
        "extent_percent": rounded_extent(truth["extent_percent"]) if is_lesion else None,
        "foci": truth["n_foci"] if is_lesion else None,
        "adjacent": _join(beside) if beside else None,
    }


def write_report(truth: Mapping[str, Any], rng: np.random.Generator) -> str:
    """Write one report from a slide's truth, with wording drawn from `rng`.

    `truth` has the keys that `virtual.Truth` states: organ, procedure, finding, extent_percent, n_foci,
    touches (labels), shares (label -> share).
    """

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    header = pick(_HEADERS).format(organ=truth["organ"], procedure=truth["procedure"])
    finding = truth["finding"]
    phrase = pick(FINDING_PHRASES[finding])
    if finding == "benign":
        shares: Mapping[str, float] = truth["shares"]
        present = sorted(shares, key=lambda label: -shares[label])
        base = _join([NEIGHBOUR_PHRASES[label] for label in present])
        tail = pick(_BENIGN_TAILS).format(base=base, Base=base[0].upper() + base[1:])
        return f"{header}{phrase}. {tail}"
    parts = [phrase, pick(_EXTENTS).format(p=rounded_extent(truth["extent_percent"]))]
    n_foci = truth["n_foci"]
    parts.append(pick(_FOCI_ONE) if n_foci == 1 else pick(_FOCI_MANY).format(n=n_foci))
    neighbours = [NEIGHBOUR_PHRASES[label] for label in truth["touches"] if label in NEIGHBOUR_PHRASES]
    if neighbours:
        parts.append(pick(_NEIGHBOURS).format(x=_join(neighbours)))
    return header + ", ".join(parts) + "."
