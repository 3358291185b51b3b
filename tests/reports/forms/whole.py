"""A report that has everything a report can have, as its forms' tests read it back."""

from typing import Any

from wsi_mivpg.reports import (
    Consensus,
    DicomInstance,
    FieldValue,
    Gate,
    Provenance,
    Report,
    Sentence,
    SlideSummary,
    TopTile,
)

SURE = "Lung, biopsy: adenocarcinoma in 35 % of the tissue."
UNSURE = "Invasion of the pleura is seen."
UIDS = DicomInstance(study_uid="1.2.3", series_uid="1.2.3.4", instance_uid="1.2.3.4.5")
TILE = TopTile(slide_id="S-77 A", x=1200, y=448, size_l0_px=444.25, weight=0.5)
OTHER_TILE = TopTile(slide_id="S-77 B", x=0, y=16, size_l0_px=444.25, weight=0.25)


def whole_report(**changes: Any) -> Report:
    """Return a report of two slides, the first of them DICOM, whose second sentence is not assessable."""
    text = f"{SURE}\n{UNSURE}"
    fields: dict[str, Any] = {
        "case_id": "S-77/2026",
        "text": text,
        "token_ids": (1, 2, 3),
        "provenance": Provenance(
            created="2026-11-23T11:00:00+01:00",
            encoder="efficientnet-lite0",
            encoder_weights_sha256="ab" * 32,
            versions={"wsi-mivpg": "0.1.0", "torch": "2.14.1"},
            seconds=3.5,
        ),
        "model": {"name": "demo", "language_model": "smollm2", "demonstration": True},
        "prompt": "Describe the slide.",
        "slides": (
            SlideSummary(
                slide_id="S-77 A",
                n_tiles=30,
                n_read=20,
                contribution=0.7,
                stain="H&E",
                mpp=0.25,
                target_mpp=0.5,
                path="/data/Doe Jane/S-77 A.dcm",
                bag="bags/S-77 A.h5",
                bag_sha256="cd" * 32,
                dicom=UIDS,
            ),
            SlideSummary(slide_id="S-77 B", n_tiles=8, path="/data/Doe Jane/S-77 B.svs"),
        ),
        "top_tiles": (TILE, OTHER_TILE),
        "sentences": (
            Sentence(
                text=SURE,
                start=0,
                end=len(SURE),
                logprob=-1.5,
                method="gradient",
                top_tiles=(TILE,),
                confidence=0.8,
                alternatives=("No tumour.",),
                unverified_numbers=((SURE.index("35"), SURE.index("35") + 4),),
            ),
            Sentence(
                text=UNSURE,
                start=len(SURE) + 1,
                end=len(text),
                logprob=-9,
                method="gradient",
                top_tiles=(OTHER_TILE,),
                confidence=0.2,
                assessable=False,
            ),
        ),
        "fields": (
            FieldValue(name="organ", value="lung", probability=0.9, alternatives=(("bronchus", 0.1),)),
            FieldValue(name="grade", value=2, probability=0.75, confidence=0.625),
            FieldValue(name="invasion", value=True, probability=0.6),
            FieldValue(name="margins", value="free margins", probability=0.3, assessable=False),
            FieldValue(name="stage", value=None, probability=0.5),
        ),
        "gates": (
            Gate(
                name="image dependence",
                value=0.125,
                threshold=0.3,
                passed=False,
                explanation="The text is as likely without S-77 A.",
            ),
            Gate(name="distribution", value=1.5, threshold=None, passed=None, explanation="Far from the others."),
        ),
        "consensus": Consensus(samples=(text, "No tumour."), chosen=0, agreement=0.8),
        "forced": ("mpp 0.5 in the model, 0.25 in /data/Doe Jane/bags/S-77 A.h5",),
        "settings_hash": "ef" * 32,
        "warnings": ("Slide S-77 A: only 30 tiles of tissue were found.",),
        "evidence": "evidence/S-77-2026-deadbeef.h5",
        "mean_logprob": -0.25,
    }
    return Report.model_validate({**fields, **changes})
