"""How the slides of a run are opened, and how their tissue is found and tiled.

Choices only: reading is `slides`' job, finding tissue is `tissue`'s.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wsi_mivpg.atomic import sha256_of
from wsi_mivpg.errors import SlideError, TissueError
from wsi_mivpg.slides import Slide, open_slide
from wsi_mivpg.slides.address import is_address, named_path
from wsi_mivpg.tissue import TissueMask, find_tissue, provenance_name


@dataclass(frozen=True)
class SlideSettings:
    """One choice for all slides of a run.

    Attributes:
        mpp: microns per pixel of level 0, where the files give none or a wrong value.
        mpp_of: the same for single slides, by file name or by name without suffix; wins over `mpp`.
        reader: the only reader that is asked; None for the first that is sure.
        fast_decode: as in `open_slide`.
        tissue: as `method` of `find_tissue`; a folder means its `<slide id>.geojson`.
        min_tissue: tiles with less tissue (0..1) are left out.
    """

    mpp: float | None = None
    mpp_of: Mapping[str, float] = field(default_factory=dict)
    reader: str | None = None
    fast_decode: bool = False
    tissue: str = "otsu"
    min_tissue: float = 0.25

    def open(self, source: Path | str, mpp: float | None = None) -> Slide:
        """Open a slide, of `mpp` microns per pixel if that is stated here; raises what `open_slide` raises."""
        if mpp is None:
            name = named_path(source) if isinstance(source, str) and is_address(source) else Path(source)
            mpp = self.mpp_of.get(name.name, self.mpp_of.get(name.stem, self.mpp))
        return open_slide(source, mpp=mpp, reader=self.reader, fast_decode=self.fast_decode)

    def find_tissue(self, slide: Slide, slide_id: str | None = None) -> TissueMask:
        """Find the tissue of an open slide, whose id is its file's name unless stated.

        Raises what `tissue.find_tissue` raises.
        """
        return find_tissue(slide, self._method(slide_id or slide.path.stem))

    def tissue_name(self, slide_id: str) -> str:
        """Return what a bag says of the method: name and version, or a GeoJSON file's sha256.

        Raises:
            TissueError: the GeoJSON file is not there.
        """
        method = self._method(slide_id)
        if isinstance(method, str):
            return provenance_name(method)
        if not method.is_file():
            raise TissueError(f"{method}: no such file; draw the tissue of {slide_id} there, or change --tissue")
        return f"geojson:{sha256_of(method)}"

    def _method(self, slide_id: str) -> str | Path:
        path = Path(self.tissue)
        if path.is_dir():
            return path / f"{slide_id}.geojson"
        return path if path.suffix.lower() in (".geojson", ".json") else self.tissue


def read_mpp_csv(path: Path) -> dict[str, float]:
    """Read microns per pixel by slide from a CSV with the columns ``slide,mpp``.

    Raises:
        SlideError: the file is missing or malformed, or names a slide twice; the message names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not {"slide", "mpp"} <= set(reader.fieldnames or ()):
                raise SlideError(f"{path}: the columns are {reader.fieldnames}; it needs slide,mpp")
            found: dict[str, float] = {}
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if row["slide"] in found:
                    raise SlideError(f"{where}: the slide {row['slide']!r} for the second time; keep one")
                try:
                    found[row["slide"]] = float(row["mpp"])
                except (TypeError, ValueError) as error:
                    raise SlideError(f"{where}: mpp is {row['mpp']!r}; give a number such as 0.25") from error
            return found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SlideError(f"{path}: cannot be read as CSV ({error}); give a file with the columns slide,mpp") from error
