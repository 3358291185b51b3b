"""How a bag of this package was made, as attributes of its HDF5 file's root.

It names and checks the attributes; the arrays beside them are `bag`'s and `writing`'s job.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import h5py

from wsi_mivpg.errors import BagError

SCHEMA = "wsi-mivpg-bag/3"
_FAMILY = "wsi-mivpg-bag/"
TILES = "tiles"
PATCH_TOKENS = "patch tokens"


@dataclass(frozen=True)
class BagProvenance:
    """How a bag was made; each field is an attribute of the file's root.

    `slide_path` is the file's name without folders. `settings_hash` covers all that decides the features, not
    the versions. Lengths are in level-0 pixels (`_px`, `_l0`), in pixels of the tile (`tile_px`, `stride_px`) or
    microns per pixel (`mpp`). In a bag of patches whose place or resolution nobody stated, `slide_mpp`, `target_mpp`
    and `tile_size_l0` are NaN, sizes 0 and `coords_known` is false. `precision` is the encoder's arithmetic ("fp32",
    "bf16", "fp16"); `plan_digest` is the tile plan's hash and `case_id` the case, "" where there is none.

    `instances` says what the rows are: "tiles" of a slide, or the "patch tokens" of one picture, which the encoder saw
    whole at `tile_px`; files from before this field hold tiles. A picture has no microns: its `mpp`s are NaN.

    `dicom_study_uid`, `dicom_series_uid` and `dicom_instance_uid` name level 0 of a DICOM slide; they are "" for other
    slides and in files from before these fields.
    """

    slide_id: str
    slide_path: str
    slide_fingerprint: str
    slide_width_px: int
    slide_height_px: int
    slide_mpp: float
    mpp_source: str
    reader: str
    target_mpp: float
    tile_px: int
    stride_px: int
    tile_size_l0: float
    min_tissue: float
    tissue_method: str
    encoder: str
    encoder_weights_sha256: str
    feature_dim: int
    precision: str
    plan_digest: str
    coords_known: bool
    case_id: str
    settings_hash: str
    version: str
    torch_version: str
    instances: str = TILES
    dicom_study_uid: str = ""
    dicom_series_uid: str = ""
    dicom_instance_uid: str = ""


def is_ours(file: h5py.File) -> bool:
    """Return whether the file says that it is a bag of this package, of any schema."""
    return str(file.attrs.get("schema", "")).startswith(_FAMILY)


def read_provenance(file: h5py.File, path: Path) -> BagProvenance:
    """Read and check the attributes of a bag of this package.

    Raises:
        BagError: another schema, an incomplete bag, or attributes that are missing or of a wrong type.
    """
    schema = file.attrs.get("schema")
    if schema != SCHEMA:
        raise BagError(
            f"{path}: a bag of schema {schema!r}, but this version reads {SCHEMA!r}; extract the slide again "
            "(`wsi-mivpg extract --overwrite`)"
        )
    if not file.attrs.get("complete", False):
        raise BagError(f"{path}: the bag is incomplete; extract the slide again with --overwrite")
    kinds: dict[str, type] = {field.name: field.type for field in dataclasses.fields(BagProvenance)}  # type: ignore[misc]
    late = {field.name for field in dataclasses.fields(BagProvenance) if field.default is not dataclasses.MISSING}
    missing = sorted(kinds.keys() - late - file.attrs.keys())
    if missing:
        raise BagError(f"{path}: attributes are missing: {', '.join(missing)}; extract the slide again")
    try:
        return BagProvenance(**{name: kind(file.attrs[name]) for name, kind in kinds.items() if name in file.attrs})
    except (TypeError, ValueError) as error:
        raise BagError(f"{path}: an attribute has a wrong type ({error}); extract the slide again") from error
