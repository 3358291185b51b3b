"""What objects show in a notebook: the right facts and pixels, nothing that runs, no error, and no waiting."""

import base64
import io
import itertools
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
import tifffile
from IPython.core.formatters import HTMLFormatter
from PIL import Image

from tests.browser import browser
from tests.conftest import Ellipse, Rectangle, TiledSlide
from wsi_mivpg.bags import FeatureBag
from wsi_mivpg.reports import Faithfulness, Provenance, Report, Sentence, SlideSummary
from wsi_mivpg.slides import open_slide
from wsi_mivpg.tiling import TilePlan, plan_tiles
from wsi_mivpg.tissue import TissueMask

__all__ = ["browser"]

HOSTILE = """<script>alert(1)</script>"><img src=x onerror='alert(2)'>"""


class Shown(HTMLParser):
    """The text, tags and pictures of a card."""

    def __init__(self, one: object) -> None:
        super().__init__()
        html = HTMLFormatter()(one)  # as a notebook asks
        assert html is not None
        self.html: str = html
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    @property
    def picture(self) -> np.ndarray:
        found = re.search(r"data:image/(?:png|jpeg);base64,([^\"]+)", self.html)
        assert found
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))


def write_foreign_bag(path: Path, coords: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros((len(coords), 8), np.float32)
        file["coords"] = coords
        file["coords"].attrs.update({"patch_size": 256, "patch_level": 0, "patch_size_level0": 256})
    return path


def a_plan() -> TilePlan:
    return plan_tiles((6400, 3200), 0.5, target_mpp=0.5, tile_px=320, min_tissue=0)


def test_a_slide_shows_its_thumbnail_with_a_scale_bar_and_its_facts(tiled_slide: TiledSlide):
    with open_slide(tiled_slide(size_px=(3200, 1600), tissue=[Rectangle(0, 0, 1600, 1600)])) as slide:
        shown = Shown(slide)
        for words in ("slide.tiff", "3\u202f200 × 1\u202f600 px", "1.6 × 0.8 mm", "0.5 µm/px", "1:1, 1:4", "500 µm"):
            assert words in shown.text
        picture = shown.picture.astype(float)
        assert picture.shape == (160, 320, 3)
        assert np.abs(picture[20:140, 10:150].mean(axis=(0, 1)) - (196, 120, 170)).max() < 8
        assert picture[:, 170:].min() > 220
        assert "width:100.0px" in shown.html  # 500 µm are 1,000 px of level 0, a tenth of them on the picture


def test_a_closed_or_unreadable_slide_still_shows_its_facts(tiled_slide: TiledSlide):
    slide = open_slide(tiled_slide())
    slide.close()
    shown = Shown(slide)
    assert "0.5 µm/px" in shown.text
    assert "No picture" in shown.text
    assert "img" not in shown.tags


def test_a_gigapixel_slide_without_small_levels_is_shown_at_once_without_a_picture(tmp_path: Path):
    path, side = tmp_path / "big.tiff", 40_960
    tile = simplejpeg.encode_jpeg(np.full((512, 512, 3), 200, np.uint8), colorsubsampling="444")
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            itertools.repeat(tile, (side // 512) ** 2),  # the same tile everywhere, encoded once
            shape=(side, side, 3),
            dtype=np.uint8,
            photometric="ycbcr",
            subsampling=(1, 1),
            tile=(512, 512),
            compression="jpeg",
            resolution=(40_000, 40_000),
            resolutionunit="CENTIMETER",
        )
    with open_slide(path) as slide:
        started = time.process_time()
        shown = Shown(slide)
        assert time.process_time() - started < 1
        assert "40\u202f960 × 40\u202f960 px" in shown.text
        assert "slide.thumbnail(1024) does" in shown.text


def test_a_mask_shows_where_the_tissue_is_and_how_much(tmp_path: Path):
    mask = np.zeros((400, 800), np.bool_)
    mask[:200, :400] = True
    blurred = np.zeros_like(mask)
    blurred[300:, 600:] = True
    shown = Shown(TissueMask(mask, (6400, 3200), 1.0, HOSTILE, blurred))
    for words in ("5.12 mm², 25% of the slide", "out of focus, left out", "1.28 mm²", HOSTILE):
        assert words in shown.text
    assert "script" not in shown.tags
    picture = shown.picture
    assert picture.shape == (160, 320, 4)
    assert (picture[:79, :159, 3] == 255).all()
    assert not picture[:79, 161:, 3].any()
    assert tuple(picture[150, 300, :3]) == (230, 130, 20)


def test_a_plan_shows_each_tile_where_it_lies():
    plan = a_plan()
    shown = Shown(plan)
    for words in ("Plan of 200 tiles", "320 px at 0.5 µm/px", "6\u202f400 × 3\u202f200 px"):
        assert words in shown.text
    picture = shown.picture
    assert picture.shape == (160, 320, 4)
    for x, y in plan.coords:  # a tile is 16 px here, and 20 level-0 px are one
        assert picture[y // 20 + 7, x // 20 + 7, 3] == 255
    assert not picture[15::16, :, 3].any()  # the gap between rows


def test_a_plan_of_half_a_million_tiles_and_an_empty_one_are_shown_at_once():
    big = plan_tiles((200_000, 140_000), 0.25, target_mpp=0.25, tile_px=224)
    started = time.process_time()
    assert "Plan of 557\u202f500 tiles" in Shown(big).text
    assert time.process_time() - started < 1
    started = time.process_time()
    none = plan_tiles((100, 100), 0.25, target_mpp=0.25, tile_px=224)
    assert "Plan of 0 tiles" in Shown(none).text
    one = plan_tiles((224, 224), 0.25, target_mpp=0.25, tile_px=224)
    assert (Shown(one).picture[:310, :310, 3] == 255).all()
    assert time.process_time() - started < 1


def test_a_bag_shows_its_tiles_on_a_map_and_what_is_known_of_it(tmp_path: Path):
    coords = np.array([[0, 0], [25_600, 0], [0, 12_800], [25_600, 12_800]])
    shown = Shown(FeatureBag.open(write_foreign_bag(tmp_path / "a.h5", coords), target_mpp=0.5, tile_px=256))
    for words in ("a.h5", "4 × 8", "not stated", "256 px at 0.5 µm/px"):
        assert words in shown.text
    alpha = shown.picture[..., 3]
    for corner in (alpha[0, 0], alpha[0, -2], alpha[-2, 0], alpha[-2, -2]):
        assert corner == 255
    assert (alpha > 0).mean() < 0.01


def test_a_bag_without_places_shows_its_facts_alone(tmp_path: Path):
    np.save(tmp_path / "only.npy", np.zeros((3, 4), np.float32))
    shown = Shown(FeatureBag.open(tmp_path / "only.npy"))
    assert "3 × 4" in shown.text
    assert "img" not in shown.tags


def test_a_report_shows_its_text_its_warnings_and_which_maps_are_not_to_be_trusted():
    nothing = dict.fromkeys(("deletion_over_feature_norm", "insertion_over_feature_norm", "deletion_over_uniform"), 0.0)
    interval = {"deletion_interval": (-1.0, 1.0), "insertion_interval": (0.1, 0.2)}
    measured = Faithfulness(
        deletion=0, insertion=0, insertion_over_uniform=0, fractions=(0.5,), random_orders=8, **nothing, **interval
    )
    text = f"First. {HOSTILE} Last."
    end = len(text) - 6
    sentences = (
        Sentence(text="First.", start=0, end=6, logprob=-1, method="gradient", faithfulness=measured),
        Sentence(text=HOSTILE, start=7, end=end, logprob=-1, method="gradient"),
        Sentence(text="Last.", start=end + 1, end=len(text), logprob=-1, method="gradient"),
    )
    shown = Shown(
        Report(
            case_id=HOSTILE,
            text=text,
            provenance=Provenance(created="today", encoder="resnet"),
            slides=(SlideSummary(slide_id="a", n_tiles=1234),),
            sentences=sentences,
            warnings=(f"beware {HOSTILE}",),
        )
    )
    assert shown.text.count(HOSTILE) == 3
    assert {"script", "img"}.isdisjoint(shown.tags)
    assert "First. [its gradient map is no better than random tiles]" in re.sub(r"\s+", " ", shown.text)
    assert shown.text.count("no better than random") == 1
    for words in ("1 slide, 1\u202f234 tiles", "encoder resnet", "not a medical device"):
        assert words in shown.text


def test_an_object_that_cannot_be_shown_falls_back_on_its_plain_form(tmp_path: Path):
    path = write_foreign_bag(tmp_path / "a.h5", np.array([[0, 0], [256, 0]]))
    bag = FeatureBag.open(path)
    path.unlink()
    assert bag._repr_html_() is None
    assert "FeatureBag" in repr(bag)


def test_cards_are_drawn_by_a_browser_with_their_picture_and_nothing_runs(browser: Any, tiled_slide: TiledSlide):
    page = browser.new_page(viewport={"width": 900, "height": 700})
    problems: list[str] = []
    page.on("console", lambda said: problems.append(said.text))
    with open_slide(
        tiled_slide(name=f"{HOSTILE.replace('/', '')}.tiff", tissue=[Ellipse(200, 200, 900, 800)])
    ) as slide:
        page.set_content(f"<body>{slide._repr_html_()}{a_plan()._repr_html_()}</body>")
    widths = page.locator("img").evaluate_all("pictures => pictures.map(one => one.naturalWidth)")
    assert widths == [320, 320]
    assert HOSTILE.replace("/", "") in page.locator("b").first.inner_text()
    assert problems == []
    page.close()
