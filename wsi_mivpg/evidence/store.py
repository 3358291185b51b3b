"""The evidence of one case in one HDF5 file: a weight for each sentence and tile, and how faithful the maps are.

Group ``/evidence``; written whole or not at all. Who draws from it needs neither bags nor slides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from wsi_mivpg.atomic import replaced
from wsi_mivpg.errors import EvidenceError
from wsi_mivpg.evidence.slide_tiles import SlideTiles
from wsi_mivpg.evidence.units import unit_of

SCHEMA = "wsi-mivpg-evidence/1"
_GROUP = "evidence"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What supports each sentence of a report.

    Attributes:
        case_id, text: the report's.
        model: name of the model that wrote it.
        slides: where the M tiles lie, slide after slide.
        sentences: (start, end) of each of the S sentences in `text`.
        weights: method -> float32 (S + 1, M): a row per sentence, then one for the whole report.
        curves: method -> for each row of `weights`, arrays by name, as `curves.Curves` has them; methods whose
            maps were not tested are left out.
    """

    case_id: str
    text: str
    model: str
    slides: tuple[SlideTiles, ...]
    sentences: tuple[tuple[int, int], ...]
    weights: Mapping[str, npt.NDArray[np.float32]]
    curves: Mapping[str, Sequence[Mapping[str, npt.NDArray[np.float64]]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(slide) for slide in self.slides)

    @property
    def coords(self) -> npt.NDArray[np.int64]:
        """(M, 2) int64, level-0 px of each tile's own slide, top left corners (x, y); -1 where not known."""
        return np.concatenate([slide.coords for slide in self.slides])

    def texts(self) -> list[str]:
        """Return what each row of `weights` supports: the sentences, then the report."""
        return [self.text[start:end] for start, end in self.sentences] + [self.text]


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write a case's evidence, whole or not at all; the same evidence gives the same bytes.

    Raises:
        EvidenceError: maps or curves do not fit the number of sentences and tiles.
        OutputError: the folder cannot be written.
    """
    rows, count = len(evidence.sentences) + 1, len(evidence)
    for method, weights in evidence.weights.items():
        if weights.shape != (rows, count):
            raise EvidenceError(f"{path}: {method} has maps of shape {weights.shape}, not {(rows, count)}")
    for method, curves in evidence.curves.items():
        if len(curves) != rows or method not in evidence.weights:
            raise EvidenceError(f"{path}: {method} has curves of {len(curves)} maps, not of {rows}")
    with replaced(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        group = file.create_group(_GROUP, track_order=False)
        group.attrs.update(
            {"schema": SCHEMA, "case_id": evidence.case_id, "text": evidence.text, "model": evidence.model}
        )
        _write_slides(group.create_group("slides"), evidence.slides)
        _put(group, "coords", evidence.coords)
        _put(group, "sentences", np.array(evidence.sentences, np.int64).reshape(-1, 2))
        for method, weights in evidence.weights.items():
            of_method = group.create_group(f"methods/{method}")
            of_method.attrs["unit"] = unit_of(method)
            _put(of_method, "weights", weights.astype(np.float32, copy=False))
            for row, curves_of_row in enumerate(evidence.curves.get(method, ())):
                for name, values in curves_of_row.items():
                    _put(of_method, f"faithfulness/{row}/{name}", np.asarray(values, np.float64))


def read_evidence(path: Path) -> Evidence:
    """Read what `write_evidence` wrote.

    Raises:
        EvidenceError: the file is missing, of another schema, or its arrays do not fit together.
    """
    way_out = "write it again with `wsi-mivpg explain`"
    try:
        with h5py.File(path, "r") as file:
            group = file[_GROUP]
            schema = group.attrs.get("schema")
            if schema != SCHEMA:
                raise EvidenceError(f"{path}: evidence of schema {schema!r}, not {SCHEMA!r}; {way_out}")
            found = _read(group)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceError(f"{path}: not a file of evidence ({error}); {way_out}") from error
    shape = (len(found.sentences) + 1, len(found))
    if any(weights.shape != shape for weights in found.weights.values()):
        raise EvidenceError(f"{path}: its maps do not fit {shape[0]} texts and {shape[1]} tiles; {way_out}")
    return found


def _write_slides(group: h5py.Group, slides: Sequence[SlideTiles]) -> None:
    _put(group, "ids", np.array([slide.slide_id for slide in slides], dtype=h5py.string_dtype()))
    _put(group, "n_tiles", np.array([len(slide) for slide in slides], np.int64))
    sides = [np.nan if slide.tile_size_l0 is None else slide.tile_size_l0 for slide in slides]
    _put(group, "tile_size_l0", np.array(sides, np.float64))
    _put(group, "size_px", np.array([slide.slide_size_px or (0, 0) for slide in slides], np.int64))


def _read(group: h5py.Group) -> Evidence:
    slides = group["slides"]
    counts = slides["n_tiles"][:].tolist()
    firsts = np.cumsum([0, *counts]).tolist()
    coords = group["coords"][:]
    if coords.shape != (firsts[-1], 2):
        raise ValueError(f"coords {coords.shape} of {firsts[-1]} tiles")
    described = zip(
        slides["ids"].asstr()[:], firsts, counts, slides["tile_size_l0"][:].tolist(), slides["size_px"][:].tolist(),
        strict=False,
    )  # fmt: skip
    return Evidence(
        case_id=str(group.attrs["case_id"]),
        text=str(group.attrs["text"]),
        model=str(group.attrs["model"]),
        slides=tuple(
            SlideTiles(
                str(name),
                first,
                coords[first : first + count],
                None if np.isnan(side) else side,
                (size[0], size[1]) if all(size) else None,
            )
            for name, first, count, side, size in described
        ),
        sentences=tuple((int(start), int(end)) for start, end in group["sentences"][:]),
        weights={method: one["weights"][:] for method, one in group["methods"].items()},
        curves={
            method: tuple(
                {name: array[()] for name, array in one["faithfulness"][str(row)].items()}
                for row in range(len(one["faithfulness"]))
            )
            for method, one in group["methods"].items()
            if "faithfulness" in one
        },
    )


def _put(group: h5py.Group, name: str, array: npt.NDArray[Any]) -> None:
    group.create_dataset(name, data=array, track_times=False)
