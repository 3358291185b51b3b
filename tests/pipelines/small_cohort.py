"""A cohort of rendered slides that is made in seconds, and a recipe that trains on it in seconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.training.tiny_cohort import tiny_recipe
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.virtual import VirtualCohort, compose_cohort
from wsi_mivpg.extraction.inputs import SlideInput, write_manifest
from wsi_mivpg.training.recipe import as_yaml

ENCODER = "tests.cli.colour_encoder:colours"
CLASSES = {"gland": ("glandular_tumour", (150, 60, 140)), "keratin": ("keratinising_tumour", (200, 110, 170))}
CLASSES |= {"lung": ("parenchyma", (215, 150, 190))}


def write_slides(folder: Path, *, train: int, val: int, test: int) -> list[Case]:
    """Compose virtual biopsies from noisy tiles of one colour a class; the same numbers give the same slides."""
    rng = np.random.default_rng(5)
    for split in ("train", "val", "test"):
        for name, (_, colour) in CLASSES.items():
            tile = np.clip(np.array(colour) + rng.integers(-25, 25, (64, 64, 1)), 0, 255).astype(np.uint8)
            place = folder / "tiles" / split / name
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(tile).save(place / "0.png")
    cohort = VirtualCohort(
        name="small",
        source=str(folder / "tiles"),
        classes={name: label for name, (label, _) in CLASSES.items()},
        train=train,
        val=val,
        test=test,
        seed=3,
        tissue_mm2=(0.1, 0.12),
        paraphrases=1,
    )
    return compose_cohort(cohort, folder, workers=1)


def write_cohort(path: Path, cases: Sequence[Case]) -> None:
    """Write the slides as `extract` reads them, with the report and the split that `train` and `evaluate` read."""
    slides = [SlideInput(case.case_id, case.slide_paths[0], case.case_id) for case in cases]
    write_manifest(path, slides)
    lines = path.read_text().splitlines()
    more = ["report,split", *(f'"{case.reports[0]}",{case.split}' for case in cases)]
    path.write_text("".join(f"{line},{rest}\n" for line, rest in zip(lines, more, strict=True)))


def write_recipe(folder: Path) -> Path:
    """Write a tiny language model and a recipe of four steps around it."""
    recipe = tiny_recipe(
        folder / "base",
        data={"encoder": ENCODER},
        optim={"steps": 4, "save_every": 2},
        selection={"metric": "rouge_l", "every": 2},
    )
    (folder / "recipe.yaml").write_text(as_yaml(recipe))
    return folder / "recipe.yaml"
