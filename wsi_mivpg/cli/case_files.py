"""The page pass of ``wsi-mivpg report``, case by case: what supports each sentence, pictures, and the case's files.

Here the halves meet: pictures come from the slides, text and evidence from the model.
"""

from pathlib import Path

import numpy as np

from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.cli import console
from wsi_mivpg.cli.case_evidence import find_evidence, with_evidence
from wsi_mivpg.cli.case_panels import Maps, panel, read_pictures
from wsi_mivpg.cli.case_summary import summarised
from wsi_mivpg.cli.case_texts import Asked, CaseText
from wsi_mivpg.cli.case_trust import with_trust
from wsi_mivpg.errors import ModelError, TextsError
from wsi_mivpg.reports import Report, SlidePanel, file_name, write_case, write_json, write_thumbnail


def describe_case(captioner: SlideCaptioner, text: CaseText, asked: Asked) -> Report:
    """Write a case's page, its JSON, its small picture and what supports its sentences, and return its report.

    Args:
        captioner: the model that wrote the text, in eval mode.
        text: what it wrote.
        asked: what the run was asked for.

    Raises:
        SlideError: a slide cannot be read.
        OutputError: a file cannot be written.
    """
    report = summarised(captioner, text, asked)
    report, maps = _with_evidence(captioner, report, text, asked)
    report = _with_trust(captioner, report, text, asked)
    if asked.pages:
        panels = _panels(text, report, maps, asked)
        write_case(asked.out, report, panels)
        thumbnail = next((one.thumbnail for one in panels if one.thumbnail is not None), None)
        if thumbnail is not None:
            write_thumbnail(asked.out, report.case_id, thumbnail)
    write_json(json_path(asked.out, report.case_id), report)
    return report


def json_path(out: Path, case_id: str) -> Path:
    """Return where a case's report lies as JSON: beside its page, of the same name."""
    return out / Path(file_name(case_id)).with_suffix(".json")


def has_files(asked: Asked, case_id: str, evidence: str | None) -> bool:
    """Return whether a case's files are there: JSON, its page where pages are wanted, the evidence that it names."""
    wanted = [json_path(asked.out, case_id)]
    wanted += [asked.out / file_name(case_id)] if asked.pages else []
    wanted += [asked.out / evidence] if evidence else []
    return all(path.exists() for path in wanted)


def _with_evidence(captioner: SlideCaptioner, report: Report, text: CaseText, asked: Asked) -> tuple[Report, Maps]:
    maps = Maps(np.asarray(text.generated.attention, np.float32))
    if asked.method is None or not report.text:
        return report, maps
    try:
        evidence = find_evidence(captioner, text.read, asked.model, [asked.method])
    except (ModelError, TextsError) as problem:  # the report stands without it
        console.note(f"warning: {report.case_id}: no evidence: {problem}")
        return report.model_copy(update={"warnings": (*report.warnings, f"There is no evidence: {problem}.")}), maps
    weights = evidence.weights[asked.method]
    report = with_evidence(report, captioner, text.read, evidence, asked.method, asked.out)
    return report, Maps(weights[-1], list(weights[:-1]))


def _with_trust(captioner: SlideCaptioner, report: Report, text: CaseText, asked: Asked) -> Report:
    if not asked.trust:
        return report
    try:
        return with_trust(report, captioner, text.read.bags, text.drawn, asked.gates)
    except (ModelError, TextsError) as problem:  # the report stands, and says that nothing vouches for it
        console.note(f"warning: {report.case_id}: no trust gates: {problem}")
        return report.model_copy(update={"warnings": (*report.warnings, f"There are no trust gates: {problem}.")})


def _panels(text: CaseText, report: Report, maps: Maps, asked: Asked) -> list[SlidePanel]:
    settings, slides, panels = asked.slide_settings, text.case.slides, []
    for tiles in text.read.slides:
        summary = next(slide for slide in report.slides if slide.slide_id == tiles.slide_id)
        source, pictures = slides.get(tiles.slide_id), None
        if source is not None:
            with settings.open(source.source, source.mpp) as slide:
                pictures = read_pictures(slide, settings, summary, report)
        panels.append(panel(tiles, maps, pictures))
    return [one for one in panels if one is not None]
