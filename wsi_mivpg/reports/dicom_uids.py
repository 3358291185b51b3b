"""What names a DICOM slide, as a report carries it; a bag's provenance states it, and OpenSlide reads it."""

import re

from pydantic import BaseModel, ConfigDict, Field

from wsi_mivpg.bags.provenance import BagProvenance

_UID = r"^[0-9][0-9.]{0,63}$"


class DicomInstance(BaseModel):
    """What names the full-resolution image (level 0) of a DICOM slide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_uid: str = Field(pattern=_UID)
    series_uid: str = Field(pattern=_UID)
    instance_uid: str = Field(pattern=_UID)


def dicom_instance(made: BagProvenance | None) -> DicomInstance | None:
    """Return the UIDs that a slide's bag states; None for a slide that is not DICOM, or of which nothing is known."""
    if made is None:
        return None
    uids = (made.dicom_study_uid, made.dicom_series_uid, made.dicom_instance_uid)
    if not all(re.fullmatch(_UID, uid) for uid in uids):
        return None
    return DicomInstance(study_uid=uids[0], series_uid=uids[1], instance_uid=uids[2])
