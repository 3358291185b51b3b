"""A rendered biopsy with a report and maps over its tiles, for everything that shows them."""

from pathlib import Path

import numpy as np

from wsi_mivpg.cohorts.virtual import VirtualCohort, compose_case
from wsi_mivpg.reports import Faithfulness, Provenance, Report, Sentence, SlideSummary, TopTile, write_jsonl
from wsi_mivpg.slides import open_slide
from wsi_mivpg.tiling import TilePlan, plan_tiles
from wsi_mivpg.tissue import find_tissue

SENTENCES = ("Lung, core biopsy: adenocarcinoma.", "It occupies about 40% of the tissue.", "Next to normal lung.")


def write_slide(folder: Path, index: int = 0) -> Path:
    """Write a rendered biopsy of about 4,000 px and return its path."""
    cohort = VirtualCohort(name="shown", test=2, seed=11, tissue_mm2=(0.3, 0.35))
    return compose_case(cohort, "test", index, folder).slide_paths[0]


def plan_of(path: Path, tile_px: int = 112) -> TilePlan:
    with open_slide(path) as slide:
        mask = find_tissue(slide)
        return plan_tiles(slide.size_px, slide.mpp, target_mpp=0.5, tile_px=tile_px, coverage=mask.coverage)


def maps_of(plans: list[TilePlan], n_rows: int) -> np.ndarray:
    """Return float32 (n_rows, M): each row falls off from a point of its own, so that no two maps look alike."""
    rows = []
    for row in range(n_rows):
        parts = []
        for plan in plans:
            centre = np.array(plan.slide_size_px) * ((row + 1) / (n_rows + 1))
            far = np.linalg.norm(plan.coords - centre, axis=1) / max(plan.slide_size_px)
            parts.append(np.exp(-8 * far))
        rows.append(np.concatenate(parts))
    return np.stack(rows).astype(np.float32)


def report_of(
    paths: list[Path], plans: list[TilePlan], maps: np.ndarray, sentences=SENTENCES, case_id="case-1"
) -> Report:
    coords = np.concatenate([plan.coords for plan in plans])
    slide_of = np.repeat(np.arange(len(plans)), [len(plan) for plan in plans])

    def top(row: int) -> tuple[TopTile, ...]:
        return tuple(
            TopTile(
                slide_id=paths[slide_of[tile]].stem,
                x=coords[tile, 0],
                y=coords[tile, 1],
                size_l0_px=plans[0].tile_size_l0,
                weight=maps[row, tile],
            )
            for tile in np.argsort(-maps[row])[:6]
        )

    measured = dict(
        deletion_over_feature_norm=0.0,
        insertion_over_feature_norm=0.0,
        deletion_over_uniform=0.0,
        insertion_over_uniform=0.0,
        fractions=(0.1, 0.5),
        random_orders=8,
        insertion=0.2,
        insertion_interval=(0.1, 0.3),
    )
    text = " ".join(sentences)
    starts = [text.index(sentence) for sentence in sentences]
    return Report(
        case_id=case_id,
        text=text,
        provenance=Provenance(created="2026-11-23T10:00:00Z"),
        slides=tuple(
            SlideSummary(
                slide_id=path.stem,
                n_tiles=len(plan),
                mpp=plan.slide_mpp,
                path=str(path),
                width_px=plan.slide_size_px[0],
                height_px=plan.slide_size_px[1],
            )
            for path, plan in zip(paths, plans, strict=True)
        ),
        top_tiles=top(len(sentences)),
        sentences=tuple(
            Sentence(
                text=sentence,
                start=start,
                end=start + len(sentence),
                logprob=-1.0,
                method="attention",
                top_tiles=top(row),
                faithfulness=Faithfulness(
                    deletion=0.2, deletion_interval=(-0.1, 0.3) if row == 2 else (0.1, 0.3), **measured
                ),
            )
            for row, (sentence, start) in enumerate(zip(sentences, starts, strict=True))
        ),
        warnings=("Only few tiles of tissue were found.",),
    )


def write_case(folder: Path, n_slides: int = 1, **changes) -> Report:
    """Write slides and ``reports.jsonl`` and return the report."""
    paths = [write_slide(folder / "data", index) for index in range(n_slides)]
    plans = [plan_of(path) for path in paths]
    report = report_of(paths, plans, maps_of(plans, len(SENTENCES) + 1), **changes)
    write_jsonl(folder / "reports.jsonl", [report])
    return report
