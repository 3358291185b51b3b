"""A rendered biopsy with a report and maps over its tiles, for everything that shows them."""

from pathlib import Path

import numpy as np

from tests.conftest import Ellipse, painted
from wsi_mivpg.cohorts.virtual import VirtualCohort, compose_case, write_pyramid
from wsi_mivpg.evidence.slide_tiles import SlideTiles
from wsi_mivpg.evidence.store import Evidence, write_evidence
from wsi_mivpg.reports import Faithfulness, Provenance, Report, Sentence, SlideSummary, TopTile, write_jsonl
from wsi_mivpg.slides import open_slide
from wsi_mivpg.tiling import TilePlan, plan_tiles
from wsi_mivpg.tissue import find_tissue

SENTENCES = ("Lung, core biopsy: adenocarcinoma.", "It occupies about 40% of the tissue.", "Next to normal lung.")


def write_slides(folder: Path, count: int) -> list[Path]:
    """Write a rendered biopsy of about 4,000 px, and painted ones beside it, which cost less."""
    cohort = VirtualCohort(name="rendered", test=1, seed=11, tissue_mm2=(0.3, 0.35))
    paths = list(compose_case(cohort, "test", 0, folder).slide_paths)
    for number in range(1, count):
        paths.append(folder / "slides" / f"painted-{number}.tiff")
        write_pyramid(paths[-1], painted((2000, 3000), [Ellipse(200, 300, 1500, 2400)], seed=number), 0.25)
    return paths


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


def write_case(folder: Path, n_slides: int = 1, *, evidence: bool = True, **changes) -> Report:
    """Write slides, ``reports.jsonl`` and the evidence, as `wsi-mivpg report` leaves them, and return the report."""
    paths = write_slides(folder, n_slides)
    plans = [plan_of(path) for path in paths]
    maps = maps_of(plans, len(SENTENCES) + 1)
    report = report_of(paths, plans, maps, **changes)
    if evidence:
        report = report.model_copy(update={"evidence": "evidence/case.h5"})
        (folder / "evidence").mkdir(exist_ok=True)
        write_evidence(folder / "evidence" / "case.h5", evidence_of(report, plans, maps))
    write_jsonl(folder / "reports.jsonl", [report])
    return report


def evidence_of(report: Report, plans: list[TilePlan], maps: np.ndarray) -> Evidence:
    counts = [len(plan) for plan in plans]
    slides = tuple(
        SlideTiles(slide.slide_id, sum(counts[:number]), plan.coords, plan.tile_size_l0, plan.slide_size_px)
        for number, (slide, plan) in enumerate(zip(report.slides, plans, strict=True))
    )
    spans = tuple((sentence.start, sentence.end) for sentence in report.sentences)
    return Evidence(report.case_id, report.text, "demo", slides, spans, {"attention": maps, "gradient": maps[::-1]})
