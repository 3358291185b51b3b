"""The widget as Python sees it; in JupyterLab it is tried by `test_jupyter`."""

import gc
from pathlib import Path

import numpy as np
import pytest
import traitlets

pytest.importorskip("anywidget", reason="anywidget is not installed")

from wsi_mivpg.errors import SlideError
from wsi_mivpg.reports import read_jsonl
from wsi_mivpg.widgets import SelectedTile, SlideViewer, Tiles


def grid(count: int, side: float = 224.0) -> Tiles:
    return Tiles(np.stack([np.arange(count) * 224, np.zeros(count, np.int64)], axis=1), side)


def test_chosen_tiles_come_back_with_their_slide_place_and_size():
    viewer = SlideViewer(tiles=[grid(2), grid(3, 112.0)])
    viewer.selected = [1, 3]
    assert viewer.selected_tiles == [
        SelectedTile(1, "slide 1", 224, 0, 224.0),
        SelectedTile(3, "slide 2", 224, 0, 112.0),
    ]
    viewer.close()


@pytest.mark.parametrize("index", [-1, 5])
def test_a_tile_that_is_not_there_cannot_be_chosen(index: int):
    viewer = SlideViewer(tiles=[grid(2), grid(3)])
    with pytest.raises(traitlets.TraitError, match=f"no tile {index}; the case has 5"):
        viewer.selected = [index]
    viewer.close()


def test_a_report_opens_at_its_whole_map_with_the_method_of_its_sentences(case_folder: Path):
    viewer = SlideViewer(report=read_jsonl(case_folder / "reports.jsonl")[0], folder=case_folder, opacity=0.2)
    assert (viewer.row, viewer.method, viewer.opacity, viewer.slide) == (3, "attention", 0.2, 0)
    viewer.close()


def test_a_slide_that_is_gone_is_one_clear_error_and_nothing_is_left_behind(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SlideError, match=r"gone\.tiff: no such file"):
        SlideViewer("gone.tiff")
    gc.collect()
    assert capsys.readouterr().err == ""
