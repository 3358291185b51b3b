"""How slides are opened and tissue is found is one choice for a run, and the bag tells it."""

import json

import pytest

from tests.extraction.driver import MeanColour
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.errors import BagError, SlideError, TissueError
from wsi_mivpg.extraction import SlideSettings, extract_slide, read_mpp_csv


def test_mpp_of_a_slide_comes_from_the_csv_then_from_the_option_then_from_the_file(tiled_slide, tmp_path):
    table = tmp_path / "mpp.csv"
    table.write_text("slide,mpp\na.tiff,0.25\nb,0.3\n")
    settings = SlideSettings(mpp=0.4, mpp_of=read_mpp_csv(table))
    found = {name: settings.open(tiled_slide(f"{name}.tiff", mpp=None)).mpp for name in ("a", "b", "c")}
    assert found == {"a": 0.25, "b": 0.3, "c": 0.4}
    assert SlideSettings(mpp_of=read_mpp_csv(table)).open(tiled_slide("d.tiff", mpp=0.5)).mpp == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,mpp\na,1\n", "slide,mpp"),
        ("slide,mpp\na,fast\n", "line 2.*'fast'"),
        ("slide,mpp\na\n", "line 2.*None"),
        ("slide,mpp\na,1\na,2\n", "line 3.*second time"),
        ("", "slide,mpp"),
    ],
)
def test_a_malformed_table_is_named_with_its_line(tmp_path, content, said):
    table = tmp_path / "mpp.csv"
    table.write_text(content)
    with pytest.raises(SlideError, match=rf"mpp\.csv.*{said}"):
        read_mpp_csv(table)
    with pytest.raises(SlideError, match=r"absent\.csv"):
        read_mpp_csv(tmp_path / "absent.csv")


def square(x: int, y: int, side: int) -> str:
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return json.dumps({"type": "Polygon", "coordinates": [corners]})


def test_drawn_tissue_decides_which_tiles_are_cut_and_the_bag_knows_the_drawing(tiled_slide, tmp_path):
    path = tiled_slide()
    drawings = tmp_path / "drawn"
    drawings.mkdir()
    (drawings / "slide.geojson").write_text(square(256, 256, 256))
    settings = SlideSettings(tissue=str(drawings))
    bag = FeatureBag.open(extract_slide(path, MeanColour(), tmp_path / "bags", settings=settings).bag_path)
    assert sorted(map(tuple, bag.coords.tolist())) == [(x, y) for x in range(256, 512, 64) for y in range(256, 512, 64)]
    assert extract_slide(path, MeanColour(), tmp_path / "bags", settings=settings).skipped
    (drawings / "slide.geojson").write_text(square(256, 256, 320))
    with pytest.raises(BagError, match="tissue_method geojson:"):
        extract_slide(path, MeanColour(), tmp_path / "bags", settings=settings)
    with pytest.raises(TissueError, match=r"other\.geojson.*draw the tissue"):
        extract_slide(tiled_slide("other.tiff"), MeanColour(), tmp_path / "bags", settings=settings)


def test_reader_and_method_are_recorded(tiled_slide, tmp_path):
    path = tiled_slide()
    for reader, fast, tissue, said in [
        (None, False, "otsu", ("tile-once", "otsu-od-chroma/4")),
        ("openslide", False, "none", ("openslide", "none")),
        (None, True, "hsv", ("tile-once-fast", "hsv-saturation/1")),
    ]:
        settings = SlideSettings(reader=reader, fast_decode=fast, tissue=tissue)
        out = tmp_path / said[0]
        made = FeatureBag.open(extract_slide(path, MeanColour(), out, settings=settings).bag_path).provenance
        assert (made.reader, made.tissue_method) == said


def test_an_unknown_method_or_reader_names_the_choices(tiled_slide, tmp_path):
    path = tiled_slide()
    with pytest.raises(TissueError, match="otsu, hsv, none"):
        extract_slide(path, MeanColour(), tmp_path, settings=SlideSettings(tissue="magic"))
    with pytest.raises(SlideError, match="tile-once, openslide"):
        extract_slide(path, MeanColour(), tmp_path, settings=SlideSettings(reader="magic"))
