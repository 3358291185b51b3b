"""Where bags lie, whether one that is there is the one that is wanted, and writing it.

One encoder: `OUT/<slide id>.h5`. Several: `OUT/<encoder>/<slide id>.h5`.
"""

import dataclasses
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import wsi_mivpg
from wsi_mivpg.atomic import canonical_hash
from wsi_mivpg.bags import SCHEMA, BagProvenance, FeatureBag, write_bag
from wsi_mivpg.bags.provenance import TILES
from wsi_mivpg.encoders.registry import TileEncoder
from wsi_mivpg.errors import BagError, OutputError
from wsi_mivpg.extraction.engine import SlideTask
from wsi_mivpg.extraction.image_tokens import token_places

# What `settings_hash` leaves out: it does not decide the features, or is decided by the rest.
_NOT_SETTINGS = frozenset(
    {
        *("slide_id", "slide_path", "case_id", "plan_digest", "settings_hash", "version", "torch_version"),
        *("dicom_study_uid", "dicom_series_uid", "dicom_instance_uid"),
    }
)


def bag_folders(out_dir: Path, encoders: Sequence[TileEncoder]) -> list[Path]:
    """Return the folder of each encoder's bags."""
    if len(encoders) == 1:
        return [out_dir]
    return [out_dir / encoder.spec.name for encoder in encoders]


def wanted_provenance(source: dict[str, Any], encoder: TileEncoder) -> BagProvenance:
    """Return what a bag will say, from an open source's fields and the encoder; the plan is not known yet."""
    spec = encoder.spec
    unhashed = BagProvenance(
        **source,
        encoder=spec.name,
        encoder_weights_sha256=spec.weights_sha256,
        feature_dim=spec.dim // spec.n_tokens,
        precision=getattr(encoder, "precision", "fp32"),
        plan_digest="",
        settings_hash="",
        version=wsi_mivpg.__version__,
        torch_version=metadata.version("torch"),
    )
    hashed = {name: value for name, value in _settings(unhashed).items() if (name, value) != ("instances", TILES)}
    settings_hash = canonical_hash({"schema": SCHEMA, **hashed})
    return dataclasses.replace(unhashed, settings_hash=settings_hash)


def kept_bag(path: Path, wanted: BagProvenance) -> FeatureBag | None:
    """Return the bag that is there, if it is complete and made with the wanted settings; None where there is none.

    Raises:
        BagError: it is damaged, or made with other settings; the message names what differs.
    """
    if not path.exists():
        return None
    bag = FeatureBag.open(path)
    made = bag.provenance
    if made is None:
        raise BagError(f"{path}: another tool's file ({bag.layout}) is in the way; pass --overwrite, or another --out")
    if made.settings_hash == wanted.settings_hash:
        return bag
    old, new = _settings(made), _settings(wanted)
    differences = [f"{name} {old[name]} there, {new[name]} now" for name in new if repr(old[name]) != repr(new[name])]
    raise BagError(
        f"{path}: made with other settings ({'; '.join(differences) or 'another version'}); "
        "pass --overwrite, or another --out"
    )


def write_task(task: SlideTask, position: int, path: Path, encoder: TileEncoder) -> None:
    """Write one encoder's bag of a slide or picture that is through the engine.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    provenance = dataclasses.replace(wanted_provenance(task.source.provenance, encoder), plan_digest=task.tiles.digest)
    n_tokens = encoder.spec.n_tokens
    rows = _tile_rows(task, position) if n_tokens == 1 else _token_rows(task, position, n_tokens)
    try:
        write_bag(path, rows.features, rows.coords, rows.tissue_fraction, provenance, rows.unreadable, rows.grid)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}; free space there, or choose another --out") from error


class _Rows(NamedTuple):
    """The arrays of a bag, as `write_bag` takes them."""

    features: npt.NDArray[np.float16]
    coords: npt.NDArray[np.int64]
    tissue_fraction: npt.NDArray[np.float32]
    unreadable: npt.NDArray[np.int64] | None
    grid: npt.NDArray[np.int32]


def _tile_rows(task: SlideTask, position: int) -> _Rows:
    tiles, features, is_read = task.tiles, task.features[position], task.is_read
    lost = tiles.coords[~is_read]
    kept = is_read if len(lost) else slice(None)  # a slice copies nothing
    return _Rows(features[kept], tiles.coords[kept], tiles.tissue_fraction[kept], lost, tiles.grid[kept])


def _token_rows(task: SlideTask, position: int, n_tokens: int) -> _Rows:
    """Cut the one vector that the engine has of a picture into its tokens."""
    made = task.source.provenance
    coords, grid = token_places(n_tokens, (made["slide_width_px"], made["slide_height_px"]))
    whole = np.ones(n_tokens, np.float32)
    return _Rows(task.features[position].reshape(n_tokens, -1), coords, whole, None, grid)


def remove_leftovers(path: Path) -> None:
    """Remove what runs that were killed left of a bag; only for whoever holds the slide's claim."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def _settings(provenance: BagProvenance) -> dict[str, object]:
    fields = dataclasses.asdict(provenance)
    return {name: value for name, value in fields.items() if name not in _NOT_SETTINGS}
