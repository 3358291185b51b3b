"""Where bags lie, whether one that is there is the one that is wanted, and writing it.

One encoder: `OUT/<slide id>.h5`. Several: `OUT/<encoder>/<slide id>.h5`.
"""

import dataclasses
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import wsi_mivpg
from wsi_mivpg.atomic import canonical_hash
from wsi_mivpg.bags import SCHEMA, BagProvenance, FeatureBag, write_bag
from wsi_mivpg.encoders.registry import TileEncoder
from wsi_mivpg.errors import BagError, OutputError
from wsi_mivpg.extraction.engine import SlideTask

# What `settings_hash` leaves out: it does not decide the features, or is decided by the rest.
_NOT_SETTINGS = frozenset(
    {"slide_id", "slide_path", "case_id", "plan_digest", "settings_hash", "version", "torch_version"}
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
        feature_dim=spec.dim,
        precision=getattr(encoder, "precision", "fp32"),
        plan_digest="",
        settings_hash="",
        version=wsi_mivpg.__version__,
        torch_version=metadata.version("torch"),
    )
    settings_hash = canonical_hash({"schema": SCHEMA, **_settings(unhashed)})
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
    """Write one encoder's bag of a slide that is through the engine.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    provenance = dataclasses.replace(wanted_provenance(task.source.provenance, encoder), plan_digest=task.tiles.digest)
    tiles, features, is_read = task.tiles, task.features[position], task.is_read
    lost = tiles.coords[~is_read]
    kept = is_read if len(lost) else slice(None)  # a slice copies nothing
    try:
        write_bag(
            path, features[kept], tiles.coords[kept], tiles.tissue_fraction[kept], provenance, lost, tiles.grid[kept]
        )
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}; free space there, or choose another --out") from error


def remove_leftovers(path: Path) -> None:
    """Remove what runs that were killed left of a bag; only for whoever holds the slide's claim."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def _settings(provenance: BagProvenance) -> dict[str, object]:
    fields = dataclasses.asdict(provenance)
    return {name: value for name, value in fields.items() if name not in _NOT_SETTINGS}
