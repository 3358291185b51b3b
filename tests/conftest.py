"""Generated slides with known truth, and the shared real data where it is there."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from hypothesis import settings
from PIL import Image, ImageDraw

from wsi_mivpg.cli.main import main
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.cohorts.virtual import VirtualCohort, compose_cohort

# Before anything imports the hub's library: tests never ask the network.
os.environ["HF_HUB_OFFLINE"] = "1"

# The same examples at every run, so that a change is judged by itself; `--hypothesis-profile=explore` draws new ones.
# No deadline: a busy machine is not a failure.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", print_blob=True, deadline=None)
settings.load_profile("fixed")

GLASS = (243, 242, 244)
TISSUE = (196, 120, 170)


class Rectangle(NamedTuple):
    """Tissue that fills a box, in level-0 px."""

    x: int
    y: int
    width: int
    height: int


class Ellipse(NamedTuple):
    """Tissue that fills the ellipse in a box, in level-0 px."""

    x: int
    y: int
    width: int
    height: int


TiledSlide = Callable[..., Path]


def painted(size_px: tuple[int, int], tissue: Sequence[Rectangle | Ellipse], seed: int = 0) -> np.ndarray:
    """Return uint8[H, W, 3]: lightly noisy glass with textured tissue of the given shapes."""
    image = Image.new("RGB", size_px, GLASS)
    draw = ImageDraw.Draw(image)
    for shape in tissue:
        corners = (shape.x, shape.y, shape.x + shape.width - 1, shape.y + shape.height - 1)
        (draw.ellipse if isinstance(shape, Ellipse) else draw.rectangle)(corners, fill=TISSUE)
    noise = np.random.default_rng(seed).integers(-6, 7, size=(size_px[1], size_px[0], 1))
    return np.clip(np.asarray(image).astype(np.int16) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def tiled_slide(tmp_path: Path) -> TiledSlide:
    """Return a factory of pyramidal JPEG TIFF slides.

    `tiled_slide(name="slide.tiff", size_px=(1500, 1200), mpp=0.5, tissue=[...], levels=2)` writes the file
    under `tmp_path` and returns its path; `mpp=None` leaves the resolution tags out.
    """

    def write(
        name: str = "slide.tiff",
        *,
        size_px: tuple[int, int] = (1500, 1200),
        mpp: float | tuple[float, float] | None = 0.5,
        tissue: Sequence[Rectangle | Ellipse] = (Rectangle(200, 200, 900, 800),),
        levels: int = 2,
        seed: int = 0,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = painted(size_px, tissue, seed)
        tags: dict[str, object] = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg"}
        tags["compressionargs"] = {"level": 95}
        if mpp is not None:
            mpp_x, mpp_y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
            tags |= {"resolution": (10_000 / mpp_x, 10_000 / mpp_y), "resolutionunit": "CENTIMETER"}
        with tifffile.TiffWriter(path) as tiff:
            for level in range(levels):
                side = (size_px[0] >> 2 * level, size_px[1] >> 2 * level)
                part = np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.BOX)) if level else pixels
                tiff.write(part, subfiletype=1 if level else 0, **tags)
        return path

    return write


@pytest.fixture(scope="session")
def unseen_biopsies(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Return five rendered biopsies, one for each finding, that no training has seen: another name and seed."""
    cohort = VirtualCohort(name="unseen", test=5, seed=2026)
    return compose_cohort(cohort, tmp_path_factory.mktemp("unseen"), splits=("test",), workers=1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of shared real data, or skip."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the shared data are not at {folder}")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return what runs the program in this process: exit code, stdout, stderr; a traceback fails the test."""

    def run_program(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(leaving.value.code or 0), captured.out, captured.err

    return run_program
