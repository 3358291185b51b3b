"""What `benchmarks/trust.py` puts before the gates: held-out virtual slides, spoilt ones, and foreign pictures.

Slides and bags are kept, so that a second run makes nothing again. Shared data are used where they lie; nothing of
them is copied into the project.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage import data as pictures

from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.captioner import CaseBags, read_case
from wsi_mivpg.cohorts.case import Case, write_manifest
from wsi_mivpg.cohorts.virtual import VirtualCohort, compose_cohort
from wsi_mivpg.mivpg.chunks import as_tensor

ENCODER = "efficientnet-lite0"
SPOILT = ("zeroed features", "noise on features", "features of another scale", "another encoder's order")
_LUNG = {"lung_aca": "glandular_tumour", "lung_scc": "keratinising_tumour", "lung_n": "parenchyma"}
_COLON = {"AC": "glandular_tumour", "H": "parenchyma"}
_GLASS = (243, 242, 244)


def cohorts(out: Path, shared: Path, train: Sequence[int], val: Sequence[int], held_out: int) -> list[Case]:
    """Compose and extract the first cases of each split of the demonstration's cohorts.

    Args:
        out: where slides and bags are kept.
        shared: the shared data.
        train, val: rendered slides, and slides of real lung tiles.
        held_out: test slides of both together.
    """
    rendered = VirtualCohort(name="rendered", train=train[0], val=val[0], test=held_out // 2, seed=11)
    lung = VirtualCohort(
        name="lung",
        source=str(shared / "tiles" / "lc25000_lung_subset.csv"),
        classes=_LUNG,
        tile_mpp=0.5,
        train=train[1],
        val=val[1],
        test=held_out - held_out // 2,
        seed=12,
    )
    found = [case for cohort in (rendered, lung) for case in compose_cohort(cohort, out)]
    extract([case.slide_paths[0] for case in found], out / "bags")
    cases = [case.with_bags([out / "bags" / f"{case.slide_paths[0].stem}.h5"]) for case in found]
    write_manifest(out / "cases.jsonl", cases)
    return cases


def spoilt(case: CaseBags, how: str, seed: int) -> CaseBags:
    """Return a case whose features are damaged in one of the ways of `SPOILT`."""
    features = as_tensor(case.instances).float()
    rng = np.random.default_rng(seed)
    if how == "zeroed features":
        changed = torch.zeros_like(features)
    elif how == "noise on features":
        changed = features + features.std() * torch.from_numpy(rng.standard_normal(features.shape)).float()
    elif how == "features of another scale":
        changed = 1.5 * features
    else:
        changed = features[:, torch.from_numpy(np.random.default_rng(0).permutation(features.shape[1]))]
    return replace(case, instances=changed)


def foreign(out: Path, shared: Path, held_out: list[Case]) -> dict[str, list[CaseBags]]:
    """Return cases that the model was not made for, by kind; a kind whose files are not here is left out."""
    slides, pens = shared / "slides", shared / "tiles" / "pen_and_tissue"
    colon = VirtualCohort(name="colon", source=str(shared / "tiles" / "crc5"), classes=_COLON, tile_mpp=0.5, test=6)
    drawn = _drawn(out / "drawn")
    kinds: dict[str, tuple[list[Path], list[str]]] = {
        "blank glass": (drawn["glass"], ["--mpp", "0.5", "--tissue", "none"]),
        "pen on glass": (drawn["pen"] + sorted(pens.glob("no-tissue-*-pen.png")), ["--mpp", "0.5", "--tissue", "none"]),
        "IHC": (drawn["ihc"] + [slides / "dzi" / "trypsin.dzi"], ["--mpp", "0.5"]),
        "twice the resolution": ([case.slide_paths[0] for case in held_out[::10]], ["--mpp", "0.5"]),
        "colon, of real tiles": (
            [case.slide_paths[0] for case in compose_cohort(colon, out / "colon", splits=("test",))],
            [],
        ),
        "other organs, real slides": ([slides / "metaplasia_HE.tiff"], []),
        "other organs, real pictures": (
            [slides / "CMU-1-Small-Region.svs", slides / "kidney-48-5.tif", *sorted(pens.glob("liver-*.png"))],
            ["--mpp", "0.5"],
        ),
        "lung, a real slide": ([slides / "lungscc_HE3.tiff"], []),
    }
    found = {}
    for place, (kind, (paths, options)) in enumerate(kinds.items()):
        here = [path for path in paths if path.exists()]
        folder = out / f"bags-{place}"
        extract(here, folder, *options)
        bags = [FeatureBag.open(path) for path in sorted(folder.glob("*.h5"))]
        found[kind] = [read_case(bag.slide_id, [bag]) for bag in bags if len(bag)]
    return {kind: cases for kind, cases in found.items() if cases}


def extract(slides: list[Path], bags: Path, *options: str) -> None:
    """Extract slides into a folder of bags; what is there is kept, and one that cannot be read is left out."""
    if slides:
        command = [sys.executable, "-m", "wsi_mivpg", "extract", *map(str, slides), "--out", str(bags)]
        subprocess.run([*command, "--encoder", ENCODER, *options], stdout=subprocess.DEVNULL, check=False)


def _drawn(folder: Path) -> dict[str, list[Path]]:
    """Write pictures of glass, of pen strokes on glass, and of scikit-image's photograph of an IHC stain."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Path]] = {"glass": [], "pen": [], "ihc": []}
    colours = ((20, 60, 160), (20, 120, 60), (170, 20, 40), (15, 15, 20))
    for number in range(6):
        rng = np.random.default_rng(number)
        for kind in ("glass", "pen"):
            image = Image.new("RGB", (1600, 1400), tuple(int(value - number) for value in _GLASS))
            if kind == "pen":
                points = [tuple(map(int, rng.integers(100, 1300, 2))) for _ in range(6)]
                ImageDraw.Draw(image).line(points, fill=colours[number % 4], width=40 + 10 * number, joint="curve")
            noisy = np.asarray(image).astype(np.int16) + rng.integers(-4, 5, (1400, 1600, 1))
            found[kind].append(folder / f"{kind}-{number}.png")
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(found[kind][-1])
    stained = pictures.immunohistochemistry()
    for number in range(4):
        found["ihc"].append(folder / f"ihc-{number}.png")
        Image.fromarray(np.tile(np.rot90(stained, number), (3, 3, 1))).save(found["ihc"][-1])
    return found
