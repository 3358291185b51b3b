"""The tile-once reader: OpenSlide's pixels for every layout, each tile decoded once, refusal where it is not sure."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from tests.conftest import Ellipse, painted
from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides import open_slide, stream_regions
from wsi_mivpg.slides.readers.base import NotReadable
from wsi_mivpg.slides.readers.tile_cache import TileCache
from wsi_mivpg.slides.readers.tiled_tiff import TiledTiffReader

SIZE = (1000, 700)
RESOLUTION = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
LAYOUTS = {
    "jpeg rgb": {"compression": "jpeg", "photometric": "rgb"},
    "jpeg 4:2:0": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)},
    "jpeg 4:4:4": {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (1, 1)},
    "deflate": {"compression": "zlib", "photometric": "rgb"},
    "deflate, predicted": {"compression": "zlib", "photometric": "rgb", "predictor": True},
    "lzw": {"compression": "lzw", "photometric": "rgb", "predictor": True},
    "none": {"photometric": "rgb"},
}


def colourful(size_px: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """Return uint8[H, W, 3] with edges, gradients and noise in every channel."""
    pixels = painted(size_px, [Ellipse(100, 80, 600, 500)], seed).astype(np.int16)
    pixels[..., 0] += np.linspace(-60, 0, size_px[0], dtype=np.int16)
    pixels[..., 2] -= np.linspace(0, 90, size_px[1], dtype=np.int16)[:, None]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray | None = None, tile: int = 240, **layout: object) -> Path:
    pixels = colourful() if pixels is None else pixels
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, tile=(tile, tile), subfiletype=0, **RESOLUTION, **layout)
        tiff.write(pixels[::4, ::4], tile=(tile, tile), subfiletype=1, **layout)
    return path


def boxes(size_px: tuple[int, int], count: int, seed: int = 0) -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        x, y = int(rng.integers(size_px[0] - 1)), int(rng.integers(size_px[1] - 1))
        found.append((x, y, int(rng.integers(1, size_px[0] - x)), int(rng.integers(1, size_px[1] - y))))
    return found


def assert_equals_openslide(path: Path, count: int = 12) -> None:
    with open_slide(path, mpp=0.5) as slide, openslide.OpenSlide(path) as peer:
        assert slide.reader == "tile-once"
        assert slide.level_sizes_px == peer.level_dimensions
        assert slide.downsamples == pytest.approx(peer.level_downsamples, rel=3e-4)
        for x, y, width, height in boxes(slide.size_px, count):
            width, height = min(width, 900), min(height, 900)
            theirs = np.asarray(peer.read_region((x, y), 0, (width, height)).convert("RGB"))
            assert np.array_equal(slide.read_level(x, y, 0, (width, height)), theirs)
        for level in range(1, len(slide.downsamples)):
            side = tuple(min(length, 700) for length in slide.level_sizes_px[level])
            theirs = np.asarray(peer.read_region((0, 0), level, side).convert("RGB"))
            assert np.array_equal(slide.read_level(0, 0, level, side), theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_equal_openslide(tmp_path, layout):
    tile = 256 if layout == "none" else 240  # tifffile pads plain tiles of 240 px, which OpenSlide refuses
    assert_equals_openslide(write(tmp_path / "slide.tiff", tile=tile, **LAYOUTS[layout]))


@pytest.mark.parametrize(
    "name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs", "lungscc_HE3.tiff", "metaplasia_HE.tiff"]
)
def test_pixels_of_real_slides_equal_openslide(shared_data, name):
    assert_equals_openslide(shared_data / "slides" / name, count=6)


def test_resolution_and_its_source_are_openslide_s(shared_data, tmp_path):
    for path in (shared_data / "slides" / "CMU-1-Small-Region.svs", write(tmp_path / "slide.tiff", **LAYOUTS["lzw"])):
        with open_slide(path) as ours, open_slide(path, reader="openslide") as peer:
            assert (ours.reader, peer.reader) == ("tile-once", "openslide")
            assert ours.mpp == pytest.approx(peer.mpp, rel=1e-6)
            assert (ours.mpp_source, ours.vendor) == (peer.mpp_source, peer.vendor)


def test_tiles_that_the_file_leaves_out_are_white(tmp_path):
    def tiles():
        for index in range(12):
            yield None if index == 5 else np.full((256, 256, 3), 90, np.uint8)

    path = tmp_path / "sparse.tiff"
    tifffile.imwrite(path, tiles(), shape=(700, 1000, 3), dtype=np.uint8, tile=(256, 256), photometric="rgb")
    with open_slide(path, mpp=0.5) as slide:
        assert slide.reader == "tile-once"
        pixels = slide.read_level(0, 0, 0, slide.size_px)
    assert (pixels[256:512, 256:512] == 255).all()
    assert (pixels[:256] == 90).all()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((600, 600, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        ((600, 600), {"photometric": "minisblack"}),
        ((3, 600, 600), {"photometric": "rgb", "planarconfig": "separate"}),
    ],
)
def test_it_refuses_what_it_is_not_sure_of(tmp_path, shape, options):
    path = tmp_path / "odd.tiff"
    tifffile.imwrite(path, np.zeros(shape, np.uint8), tile=(256, 256), **options)
    with pytest.raises(NotReadable):
        TiledTiffReader(path)


@pytest.mark.parametrize(("compression", "reader"), [(33005, "tile-once"), (33003, "openslide")])
def test_jpeg_2000_of_aperio_shows_the_right_colours(tmp_path, compression, reader):
    """33005 holds RGB; 33003 holds YCbCr, which tile-once leaves to OpenSlide."""
    pixels = colourful((512, 512))
    stored = pixels
    if compression == 33003:
        stored = np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    corners = [(y, x) for y in (0, 256) for x in (0, 256)]
    tiles = [
        imagecodecs.jpeg2k_encode(stored[y : y + 256, x : x + 256], codecformat="j2k", reversible=True, mct=False)
        for y, x in corners
    ]
    path = tmp_path / "slide.svs"
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=pixels.shape,
        dtype=np.uint8,
        tile=(256, 256),
        photometric="rgb",
        compression=34712,
        description="Aperio Image Library v11\r\n512x512 |MPP = 0.5",
        metadata=None,
    )
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags["Compression"].valueoffset
    content = bytearray(path.read_bytes())
    content[at : at + 2] = compression.to_bytes(2, "little")
    path.write_bytes(content)
    with open_slide(path) as slide:
        assert (slide.reader, slide.vendor, slide.mpp) == (reader, "aperio", 0.5)
        seen = slide.read_level(0, 0, 0, (512, 512))
    # The way to YCbCr and back rounds twice.
    assert np.abs(seen.astype(int) - pixels).max() <= (0 if compression == 33005 else 3)


def test_it_leaves_untiled_and_ome_files_to_others(tmp_path):
    pixels = colourful()
    tifffile.imwrite(tmp_path / "strips.tiff", pixels, photometric="rgb", rowsperstrip=64)
    tifffile.imwrite(tmp_path / "a.ome.tiff", pixels, photometric="rgb", tile=(256, 256))
    for name in ("strips.tiff", "a.ome.tiff"):
        with open_slide(tmp_path / name, mpp=0.5) as slide:
            assert slide.reader != "tile-once"
            assert np.array_equal(slide.read_level(30, 40, 0, (300, 200)), pixels[40:240, 30:330])


def test_a_stream_decodes_each_tile_once_and_holds_about_one_row(tmp_path):
    pixels = colourful((3000, 2400))
    path = write(tmp_path / "slide.tiff", pixels, tile=128, **LAYOUTS["jpeg 4:2:0"])
    side_l0, columns, rows = 150, 20, 16
    corners = np.array([(c * side_l0, r * side_l0) for r in range(rows) for c in range(columns)], dtype=np.int64)
    with open_slide(path, mpp=0.25) as slide:
        tiles = slide._reader.tiles  # type: ignore[attr-defined]
        before = tiles.n_decoded
        batches = list(stream_regions(slide, corners, 75, 0.5, batch_size=16, threads=2))
        assert tiles.n_decoded - before == 24 * 19
        assert tiles.most_held < 24 * 8
        assert not tiles._tiles
        for batch in batches:
            for i, region in enumerate(batch.pixels):
                x, y = corners[batch.start + i]
                assert np.array_equal(region, slide.read_region(float(x), float(y), 75, 0.5))
    assert [batch.start for batch in batches] == list(range(0, len(corners), 16))


def test_an_unreadable_tile_is_named_for_the_regions_that_need_it_and_no_other(tmp_path):
    path = write(tmp_path / "slide.tiff", tile=256, **LAYOUTS["jpeg rgb"])
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[5], page.databytecounts[5]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = bytes(count)
    path.write_bytes(content)
    corners = np.array([(x, y) for y in range(0, 600, 100) for x in range(0, 900, 100)], dtype=np.int64)
    with open_slide(path, mpp=0.5) as slide:
        batches = list(stream_regions(slide, corners, 100, 0.5, batch_size=10))
    failures = {index: why for batch in batches for index, why in batch.failures.items()}
    needs_tile = (corners < 512).all(axis=1) & (corners + 100 > 256).all(axis=1)
    assert sorted(failures) == np.flatnonzero(needs_tile).tolist()
    assert all("slide.tiff" in why for why in failures.values())


def test_a_tile_outside_the_file_is_an_error(tmp_path):
    path = write(tmp_path / "slide.tiff", **LAYOUTS["none"])
    with tifffile.TiffFile(path) as tiff:
        last = max(tiff.pages[0].dataoffsets)
    path.write_bytes(path.read_bytes()[: last + 10] if last > 5000 else path.read_bytes())
    with pytest.raises(SlideError), open_slide(path, mpp=0.5) as slide:
        slide.read_level(0, 0, 0, slide.size_px)


def test_closing_ends_reading(tmp_path):
    slide = open_slide(write(tmp_path / "slide.tiff", **LAYOUTS["none"]))
    slide.close()
    slide.close()
    with pytest.raises(SlideError):
        slide.read_level(0, 0, 0, (10, 10))


def test_many_threads_share_one_decode():
    decoded: list[tuple[int, int, int]] = []
    started = threading.Barrier(4)

    def decode(key, buffer):
        decoded.append(key)
        pixels = np.empty((2, 2, 3), np.uint8) if buffer is None else buffer
        pixels[:] = key[2]
        return pixels

    cache = TileCache(decode)
    cache.announce(0, np.full((1, 50), 4, np.int32))

    def read(_: int) -> list[int]:
        started.wait()
        seen = []
        for column in range(50):
            with cache.use((0, 0, column)) as tile:
                seen.append(int(tile.mean()))
        return seen

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == [list(range(50))] * 4
    assert sorted(decoded) == [(0, 0, column) for column in range(50)]
    assert not cache._tiles


def test_a_failing_decode_fails_every_user_and_leaves_nothing_behind():
    def decode(key, buffer):
        raise ValueError("damaged")

    cache = TileCache(decode)
    cache.announce(0, np.full((1, 1), 2, np.int32))
    for _ in range(3):
        with pytest.raises(ValueError, match="damaged"), cache.use((0, 0, 0)):
            pass
    assert not cache._tiles
    assert not cache._users


def test_a_buffer_is_used_again_only_after_its_last_user_is_done():
    cache = TileCache(lambda key, buffer: np.full((1, 1, 3), key[2], np.uint8) if buffer is None else buffer)
    with cache.use((0, 0, 1)) as first:
        with cache.use((0, 0, 2)) as second:
            assert second is not first
        with cache.use((0, 0, 3)) as third:
            assert third is second
