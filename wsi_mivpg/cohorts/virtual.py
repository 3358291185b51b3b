"""Virtual biopsies with known truth: real pyramidal TIFF slides composed from labelled tissue.

A label map is drawn first (fragments, a main finding in some foci, its neighbours); the truth is measured on
that map; pixels are then looked up in one texture per label, rendered (`rendered_tissue`) or made of real
tiles (`tile_folder`). Nothing here reads slides.
"""

import json
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from pydantic import BaseModel, ConfigDict, Field

from wsi_mivpg.atomic import replaced, write_text
from wsi_mivpg.cohorts.case import SPLITS, Case, write_manifest
from wsi_mivpg.cohorts.label_map import MAP_CELL_PX, LabelMap, Truth, draw_label_map, measure_truth
from wsi_mivpg.cohorts.rendered_tissue import random_stain, render
from wsi_mivpg.cohorts.tile_folder import TileFolder, open_tile_folder
from wsi_mivpg.cohorts.wording import FINDING_OF_LABEL, stated_fields, write_report

LEVELS = (1, 4, 16)
_RENDERED_LABELS = ("parenchyma", "stroma", "glandular_tumour", "keratinising_tumour", "lymphoid", "necrosis")
_TEXTURE_SIDE_PX = 1536

RGB = npt.NDArray[np.uint8]


class VirtualCohort(BaseModel):
    """One virtual cohort of a recipe: where its tissue comes from and how many cases each split has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: str = "rendered"
    """``rendered``, or a CSV (path,class,split) or a folder ``split/class/*`` of real tiles."""
    classes: dict[str, str] = Field(default_factory=dict)
    """Class of a real tile -> tissue label; classes that are not named are not used."""
    tile_mpp: float = 0.5
    """Resolution of the real tiles; they are enlarged to `mpp`."""
    train: int = 0
    val: int = 0
    test: int = 0
    seed: int = 0
    mpp: float = 0.25
    tissue_mm2: tuple[float, float] = (0.5, 1.1)
    """Least and greatest total tissue area of a slide."""
    paraphrases: int = 4
    """Reports written for each case, all from the same truth."""

    def count(self, split: str) -> int:
        """Return the number of cases of a split: train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


def case_rng(cohort: VirtualCohort, split: str, index: int) -> np.random.Generator:
    """Return the generator of one case: it depends on the cohort's name, seed, split and index alone."""
    return np.random.default_rng([zlib.crc32(cohort.name.encode()), cohort.seed, SPLITS.index(split), index])


def compose_cohort(
    cohort: VirtualCohort,
    out_dir: Path,
    *,
    splits: tuple[str, ...] = SPLITS,
    workers: int = 2,
    on_case: Callable[[str], None] = lambda case_id: None,
) -> list[Case]:
    """Write the slides, their truth (``<case>.truth.json`` beside each) and ``<name>.jsonl``; return the cases.

    Slides that are already there are kept: a case's bytes depend on the recipe alone.

    Raises:
        CohortError: the tile source is missing or lacks a class.
        OutputError: the folder cannot be written.
    """
    jobs = [(cohort, split, index, out_dir) for split in splits for index in range(cohort.count(split))]
    cases: list[Case] = []
    if workers > 1 and len(jobs) > 1:
        # Spawned, not forked: the caller may hold threads of torch.
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
            for case in pool.map(_compose_job, jobs, chunksize=4):
                cases.append(case)
                on_case(case.case_id)
    else:
        for job in jobs:
            cases.append(_compose_job(job))
            on_case(cases[-1].case_id)
    write_manifest(out_dir / f"{cohort.name}.jsonl", cases)
    return cases


def _compose_job(job: tuple[VirtualCohort, str, int, Path]) -> Case:
    return compose_case(*job)


def compose_case(cohort: VirtualCohort, split: str, index: int, out_dir: Path) -> Case:
    """Write one virtual slide with its truth, and return its case (slide ``slides/<case_id>.tiff``)."""
    case_id = f"{cohort.name}-{split}-{index:04d}"
    slide_path = out_dir / "slides" / f"{case_id}.tiff"
    truth_path = slide_path.with_suffix(".truth.json")
    if not (slide_path.exists() and truth_path.exists()):
        rng = case_rng(cohort, split, index)
        tiles = None if cohort.source == "rendered" else open_tile_folder(cohort.source, split, cohort.classes)
        label_map = draw_label_map(_plan(cohort, tiles, index, rng), rng)
        truth = measure_truth(label_map, cohort.mpp)
        glass = int(rng.integers(234, 249))
        pixels = paint(label_map, _textures(label_map, cohort, tiles, glass, rng), glass, rng)
        write_pyramid(slide_path, pixels, cohort.mpp)
        record = truth.to_json() | {"case_id": case_id, "source": cohort.name, "mpp": cohort.mpp}
        record["reports"] = [write_report(record, rng) for _ in range(cohort.paraphrases)]
        write_text(truth_path, json.dumps(record, indent=1))
    record = json.loads(truth_path.read_text(encoding="utf-8"))
    truth_only = {key: value for key, value in record.items() if key not in ("reports", "regions")}
    return Case(
        case_id=case_id,
        slide_paths=(slide_path,),
        bag_paths=(),
        reports=tuple(record["reports"]),
        split=split,
        truth=truth_only | {"fields": stated_fields(truth_only)},
    )


def _plan(cohort: VirtualCohort, tiles: TileFolder | None, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Choose what the slide shows: finding, share, foci, base tissue, a second tissue."""
    labels = _RENDERED_LABELS if tiles is None else tuple(tiles.labels)
    mains = [label for label in FINDING_OF_LABEL if label in labels]
    findings: list[str | None] = [*mains, None]
    main = findings[index % len(findings)]
    bases = [label for label in ("parenchyma", "stroma") if label in labels]
    second: str | None = None
    if tiles is None and main in ("glandular_tumour", "keratinising_tumour") and rng.random() < 0.6:
        second = ("lymphoid", "necrosis")[int(rng.integers(2))]
    return {
        "main": main,
        "share": float(rng.uniform(0.1, 0.9)),
        "foci": int(rng.integers(1, 5)),
        "bases": bases,
        "base_split": float(rng.uniform(0.3, 0.9)) if rng.random() < 0.6 else 1.0,
        "second": second,
        "second_touches": bool(rng.random() < 0.5),
        "tissue_cells": float(rng.uniform(*cohort.tissue_mm2)) * 1e6 / (cohort.mpp * MAP_CELL_PX) ** 2,
        "fragments": int(rng.integers(1, 4)),
    }


def _textures(
    label_map: LabelMap, cohort: VirtualCohort, tiles: TileFolder | None, glass: int, rng: np.random.Generator
) -> dict[str, RGB]:
    """Return one texture for each label; a rendered airspace is as bright as the slide's glass."""
    if tiles is not None:
        gain = rng.uniform(0.85, 1.15) * rng.uniform(0.94, 1.06, size=3)
        return {label: tiles.texture(label, 8, cohort.tile_mpp / cohort.mpp, gain, rng) for label in label_map.labels}
    stain = random_stain(rng)
    lamp = (np.arange(256) * (glass / 252)).round().clip(0, 255).astype(np.uint8)
    return {label: lamp[render(label, _TEXTURE_SIDE_PX, stain, rng)] for label in label_map.labels}


def paint(label_map: LabelMap, textures: dict[str, RGB], glass_level: int, rng: np.random.Generator) -> RGB:
    """Return uint8[H, W, 3]: each pixel from the texture of its label (wrapping), grey glass elsewhere."""
    cells_high, cells_wide = label_map.index.shape
    high, wide = cells_high * MAP_CELL_PX, cells_wide * MAP_CELL_PX
    glass = (glass_level + rng.normal(0, 1.2, size=(256, 256, 1))).clip(0, 255).astype(np.uint8)
    glass = np.repeat(glass, 3, axis=2)
    out = np.empty((high, wide, 3), np.uint8)
    sources = [glass, *(textures[label] for label in label_map.labels)]
    shifts = [rng.integers(0, source.shape[0], size=2) for source in sources]
    band_cells = 64
    for first in range(0, cells_high, band_cells):
        index = label_map.index[first : first + band_cells]
        top, bottom = first * MAP_CELL_PX, (first + index.shape[0]) * MAP_CELL_PX
        for number, (source, shift) in enumerate(zip(sources, shifts, strict=True)):
            columns = np.flatnonzero((index == number).any(axis=0))
            if columns.size == 0:
                continue
            left, right = columns[0] * MAP_CELL_PX, (columns[-1] + 1) * MAP_CELL_PX
            ys = (np.arange(top, bottom) + shift[0]) % source.shape[0]
            xs = (np.arange(left, right) + shift[1]) % source.shape[1]
            looked_up = source.take(ys, axis=0).take(xs, axis=1)
            here = (index == number)[:, columns[0] : columns[-1] + 1]
            fine = here.repeat(MAP_CELL_PX, axis=0).repeat(MAP_CELL_PX, axis=1)
            np.copyto(out[top:bottom, left:right], looked_up, where=fine[..., None])
    return out


def write_pyramid(path: Path, pixels: RGB, mpp: float) -> None:
    """Write a tiled JPEG TIFF with levels 1, 4 and 16 and the resolution in its tags."""
    with replaced(path) as temporary, tifffile.TiffWriter(temporary) as tiff:
        level = pixels
        for factor in LEVELS:
            tiff.write(
                level,
                photometric="rgb",
                tile=(256, 256),
                compression="jpeg",
                compressionargs={"level": 88},
                resolution=(1e4 / (mpp * factor), 1e4 / (mpp * factor)),
                resolutionunit="CENTIMETER",
                subfiletype=1 if factor > 1 else 0,
                metadata=None,
                software="wsi-mivpg virtual biopsy",
            )
            level = _quarter(level)


def _quarter(pixels: RGB) -> RGB:
    """Return the means of 4 x 4 pixel blocks."""
    high, wide = pixels.shape[0] // 4, pixels.shape[1] // 4
    rows = pixels[: high * 4, : wide * 4].reshape(high, 4, wide * 12).sum(axis=1, dtype=np.uint16)
    sums = rows.reshape(high, wide, 4, 3).sum(axis=2, dtype=np.uint16)
    means: RGB = ((sums + 8) // 16).astype(np.uint8)
    return means


__all__ = ["Truth", "VirtualCohort", "compose_case", "compose_cohort", "paint", "write_pyramid"]
