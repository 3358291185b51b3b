"""`SlideViewer`: the viewer as a Jupyter widget, with tiles that the kernel reads and a selection that Python sees.

What it shows is put together in `gather`; this file is the traffic between kernel and browser.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import numpy.typing as npt
import traitlets

from wsi_mivpg.reports import Report
from wsi_mivpg.slides import Slide
from wsi_mivpg.widgets.bundle import jupyter_script, style
from wsi_mivpg.widgets.gather import HasTiles, gathered

_READERS = 4


class SelectedTile(NamedTuple):
    """A tile that was chosen in the viewer; lengths in level-0 px, (x, y) its upper left corner."""

    tile: int
    """Its place among the case's tiles, slide after slide: its row in bags and its column in weights."""
    slide_id: str
    x: int
    y: int
    size_l0_px: float


class SlideViewer(anywidget.AnyWidget):
    """Slides of a case to pan and zoom, heatmaps over them, and the report's sentences linked to both.

    Attributes:
        slide: number of the slide that is shown.
        row: which map is drawn: number of the sentence; the number of sentences for the whole report.
        method: how its tiles were weighed, "attention", "gradient" or "leave-out".
        opacity: of the heatmap, 0..1.
        threshold: tiles below this value of the scale, 0..1, are not drawn.
        scale: "rank" (among the case's tiles) or "raw" (the weight itself).
        colours: "viridis" or "cividis".
        selected: indices of the chosen tiles among the case's.
        height_px: height of the viewer.
    """

    _esm = jupyter_script()
    _css = style()

    scene = traitlets.Dict().tag(sync=True)
    slide = traitlets.Int(0).tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    method = traitlets.Unicode("").tag(sync=True)
    opacity = traitlets.Float(0.55, min=0, max=1).tag(sync=True)
    threshold = traitlets.Float(0.0, min=0, max=1).tag(sync=True)
    scale = traitlets.Enum(("rank", "raw"), "rank").tag(sync=True)
    colours = traitlets.Enum(("viridis", "cividis"), "viridis").tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    height_px = traitlets.Int(620, min=240).tag(sync=True)

    def __init__(
        self,
        slides: Slide | Path | str | Sequence[Slide | Path | str] = (),
        *,
        report: Report | None = None,
        evidence: Path | str | None = None,
        tiles: HasTiles | Sequence[HasTiles] | None = None,
        weights: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None,
        labels: Sequence[str] = (),
        folder: Path | str = "",
        **settings: Any,
    ) -> None:
        """Show slides; with a report, its evidence file, or tiles and weights of your own.

        Args:
            slides: open slides, files or addresses; none to take those that the report names.
            report: its sentences become buttons.
            evidence: the file that `wsi-mivpg explain` or `report` wrote; by default the one that the report names.
            tiles: instead of evidence, what says where the tiles of each slide are: feature bags, tile plans, or
                anything with `coords` (N, 2) int64 and `tile_size_l0`.
            weights: (M,) or (R, M), for the tiles of all slides one after another: a row for each sentence and a
                last one for the whole report, or any rows; several methods as a mapping by name.
            labels: names of the rows, where they are not the report's sentences.
            folder: where the report lies; the files that it names are looked for from there.
            settings: initial values of the attributes above.

        Raises:
            WsiMivpgError: a slide or the evidence cannot be read, or numbers of slides, tiles and weights differ.
        """
        # First, because a widget that could not be made is closed all the same.
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="wsi-mivpg-viewer")
        self._scene = gathered(
            slides,
            report=report,
            evidence=evidence,
            tiles=tiles,
            weights=weights,
            labels=labels,
            folder=Path(folder),
        )
        described = self._scene.describe()
        self._asked: dict[str, Future[None]] = {}
        super().__init__(scene=described, **(described["first"] | settings))
        self.on_msg(self._on_message)

    @property
    def selected_tiles(self) -> list[SelectedTile]:
        """The chosen tiles; `pandas.DataFrame(viewer.selected_tiles)` makes a table of them."""
        scene = self._scene
        chosen = []
        for index in self.selected:
            slide = scene.slides[scene.slide_of[index]]
            x, y = scene.coords[index]
            chosen.append(SelectedTile(index, slide.slide_id, int(x), int(y), slide.tile_size_l0))
        return chosen

    def close(self) -> None:
        """Take the viewer out of the notebook and stop reading for it."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    @traitlets.validate("selected")
    def _known_tiles(self, proposal: Any) -> list[int]:
        indices = [int(index) for index in proposal["value"]]
        n_tiles = len(self._scene.coords)
        if wrong := [index for index in indices if not 0 <= index < n_tiles]:
            raise traitlets.TraitError(f"there is no tile {wrong[0]}; the case has {n_tiles}, counted from 0")
        return indices

    def _on_message(self, _: object, content: dict[str, Any], buffers: object) -> None:
        """Hand a request to the readers at once, so that the kernel is free for the next, which may cancel it."""
        if content.get("kind") == "drop":
            for name in content["ids"]:
                if asked := self._asked.pop(name, None):
                    asked.cancel()
        elif content.get("kind") == "get":
            name = content["id"]
            asked = self._asked[name] = self._pool.submit(self._reply, name, content["path"])
            asked.add_done_callback(lambda _: self._asked.pop(name, None))

    def _reply(self, name: str, path: str) -> None:
        try:
            _, answer = self._scene.answer(path)
            self.send({"id": name}, [answer])
        except Exception as problem:  # whatever it is, the browser must not wait for ever
            self.send({"id": name, "error": str(problem)})
