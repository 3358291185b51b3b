"""DeepZoom pyramids: the pixels that were cut, whatever tile size and overlap, and clear words for broken ones."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsi_mivpg.errors import ResolutionError, SlideError
from wsi_mivpg.slides import open_slide, stream_regions

DZI = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" {said}>{size}</Image>'
)


def noise(size_px: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size_px[1], size_px[0], 3), dtype=np.uint8)


def halved(pixels: np.ndarray) -> np.ndarray:
    """Return the next level: sides halved and rounded up, as DeepZoom has them."""
    side = (-(-pixels.shape[1] // 2), -(-pixels.shape[0] // 2))
    return np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.BOX))


def write_dzi(path: Path, **changes: object) -> Path:
    said = {"Format": "png", "Overlap": 1, "TileSize": 64, "Width": 300, "Height": 200} | changes
    attributes = " ".join(f'{name}="{said[name]}"' for name in ("Format", "Overlap", "TileSize"))
    size = f'<Size Width="{said["Width"]}" Height="{said["Height"]}"/>'
    path.write_text(DZI.format(said=attributes, size=size))
    return path


def write_pyramid(path: Path, pixels: np.ndarray, tile: int = 64, overlap: int = 1) -> list[np.ndarray]:
    """Write a pyramid of lossless tiles and return its levels, the largest first."""
    height, width = pixels.shape[:2]
    write_dzi(path, TileSize=tile, Overlap=overlap, Width=width, Height=height)
    levels = [pixels]
    while max(levels[-1].shape[:2]) > 1:
        levels.append(halved(levels[-1]))
    for number, level in enumerate(reversed(levels)):
        folder = path.with_name(f"{path.stem}_files") / str(number)
        folder.mkdir(parents=True)
        for row, top in enumerate(range(0, level.shape[0], tile)):
            for column, left in enumerate(range(0, level.shape[1], tile)):
                part = level[
                    max(top - overlap, 0) : top + tile + overlap, max(left - overlap, 0) : left + tile + overlap
                ]
                Image.fromarray(part).save(folder / f"{column}_{row}.png", compress_level=1)
    return levels


def properties(path: Path, **said: str) -> None:
    rows = "".join(
        f"<property><name>{name.replace('__', '-').replace('_', '.')}</name><value>{value}</value></property>"
        for name, value in said.items()
    )
    folder = path.with_name(f"{path.stem}_files")
    text = f'<?xml version="1.0"?><image xmlns="http://www.vips.ecs.soton.ac.uk//dzsave"><properties>{rows}'
    (folder / "vips-properties.xml").write_text(f"{text}</properties></image>")


@pytest.mark.parametrize("overlap", [0, 1, 2])
@pytest.mark.parametrize("size_px", [(1001, 523), (640, 512), (257, 1025)])
def test_every_level_shows_the_pixels_that_were_cut(tmp_path, size_px, overlap):
    levels = write_pyramid(tmp_path / "a.dzi", noise(size_px), tile=128, overlap=overlap)
    rng = np.random.default_rng(1)
    with open_slide(tmp_path / "a.dzi", mpp=0.5) as slide:
        assert slide.reader == "deepzoom"
        assert slide.size_px == size_px
        assert slide.downsamples == tuple(2.0**level for level in range(len(slide.downsamples)))
        assert max(slide.level_sizes_px[-1]) <= 256 < max(slide.level_sizes_px[-2])
        for level, (width, height) in enumerate(slide.level_sizes_px):
            assert (height, width) == levels[level].shape[:2]
            assert np.array_equal(slide.read_level(0, 0, level, (width, height)), levels[level])
            for _ in range(10):
                x, y = int(rng.integers(width)), int(rng.integers(height))
                w, h = int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))
                assert np.array_equal(slide.read_level(x, y, level, (w, h)), levels[level][y : y + h, x : x + w])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_box_of_any_layout_is_exact(data):
    width, height = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    tile = data.draw(st.integers(7, 40))
    pixels = noise((width, height), seed=width * 100 + height)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.dzi")
        write_pyramid(path, pixels, tile, data.draw(st.integers(0, 3)))
        with open_slide(path, mpp=0.5) as slide:
            x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
            w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
            assert np.array_equal(slide.read_level(x, y, 0, (w, h)), pixels[y : y + h, x : x + w])


def test_a_stream_decodes_each_tile_once(tmp_path):
    pixels = noise((1000, 700))
    write_pyramid(tmp_path / "a.dzi", pixels, tile=100)
    corners = np.array([(x, y) for y in range(0, 700, 70) for x in range(0, 1000, 50)], dtype=np.int64)
    with open_slide(tmp_path / "a.dzi", mpp=0.5) as slide:
        batches = list(stream_regions(slide, corners, 50, 0.5, batch_size=16, threads=2))
        assert slide._reader.tiles.n_decoded == 70  # type: ignore[attr-defined]
    seen = np.concatenate([batch.pixels for batch in batches])
    assert all(
        np.array_equal(region, pixels[y : y + 50, x : x + 50]) for region, (x, y) in zip(seen, corners, strict=True)
    )


def test_transparent_and_grey_tiles_become_rgb_over_white(tmp_path):
    write_dzi(tmp_path / "a.dzi", Overlap=0, Width=128, Height=64)
    folder = tmp_path / "a_files" / "7"
    folder.mkdir(parents=True)
    Image.new("RGBA", (64, 64), (200, 0, 0, 0)).save(folder / "0_0.png")
    Image.new("L", (64, 64), 77).save(folder / "1_0.png")
    with open_slide(tmp_path / "a.dzi", mpp=0.5) as slide:
        pixels = slide.read_level(0, 0, 0, (128, 64))
    assert (pixels[:, :64] == 255).all()
    assert (pixels[:, 64:] == 77).all()


def test_a_missing_tile_is_named_for_the_regions_that_need_it_and_no_other(tmp_path):
    write_pyramid(tmp_path / "a.dzi", noise((600, 400)), tile=100)
    (tmp_path / "a_files" / "10" / "2_1.png").unlink()
    corners = np.array([(x, y) for y in range(0, 400, 50) for x in range(0, 600, 50)], dtype=np.int64)
    with open_slide(tmp_path / "a.dzi", mpp=0.5) as slide:
        batches = list(stream_regions(slide, corners, 50, 0.5, batch_size=10))
    failures = {index: why for batch in batches for index, why in batch.failures.items()}
    needs_tile = (corners // 100 == (2, 1)).all(axis=1)
    assert sorted(failures) == np.flatnonzero(needs_tile).tolist()
    assert all(str(Path("a_files", "10", "2_1.png")) in why and "missing" in why for why in failures.values())


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "small", "large", "16-bit"])
def test_a_damaged_tile_is_an_error_that_names_it(tmp_path, damage):
    write_pyramid(tmp_path / "a.dzi", noise((300, 200)), tile=64, overlap=1)
    tile = tmp_path / "a_files" / "9" / "1_1.png"
    content = tile.read_bytes()
    if damage in ("truncated", "empty", "text"):
        tile.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"<html>"}[damage])
    elif damage == "16-bit":
        Image.fromarray(np.zeros((66, 66), np.uint16)).save(tile)
    else:
        Image.fromarray(noise((64, 64) if damage == "small" else (70, 66))).save(tile)
    with open_slide(tmp_path / "a.dzi", mpp=0.5) as slide:
        slide.read_level(0, 0, 0, (64, 64))
        with pytest.raises(SlideError, match=r"1_1\.png"):
            slide.read_level(60, 60, 0, (10, 10))


def test_levels_end_where_their_folders_end(tmp_path):
    write_pyramid(tmp_path / "a.dzi", noise((1200, 900)), tile=256)
    for tile in (tmp_path / "a_files" / "9").iterdir():
        tile.unlink()
    (tmp_path / "a_files" / "9").rmdir()
    with open_slide(tmp_path / "a.dzi", mpp=0.5) as slide:
        assert slide.downsamples == (1.0, 2.0)
        assert slide.thumbnail(100).shape == (75, 100, 3)


@pytest.mark.parametrize(
    ("said", "mpp"),
    [
        ({"openslide_mpp__x": "0.25", "openslide_mpp__y": "0.251", "xres": "1", "yres": "1"}, 0.2505),
        ({"xres": "2000", "yres": "2000"}, 0.5),
        (
            {"openslide_mpp__x": "0.25", "openslide_mpp__y": "0.25", "slide__level": "1"}
            | {"openslide_level[1]_downsample": "4.0"},
            1.0,
        ),
        ({"xres": "1", "yres": "1"}, None),
        ({"xres": "nan", "yres": "inf"}, None),
        ({"openslide_mpp__x": "0.25", "openslide_mpp__y": "0.25", "slide__level": "1"}, None),
        ({}, None),
    ],
)
def test_resolution_is_what_libvips_noted(tmp_path, said, mpp):
    write_pyramid(tmp_path / "a.dzi", noise((300, 200)))
    properties(tmp_path / "a.dzi", **said)
    if mpp is None:
        with pytest.raises(ResolutionError, match="gives no microns per pixel"):
            open_slide(tmp_path / "a.dzi")
    else:
        with open_slide(tmp_path / "a.dzi") as slide:
            assert (slide.mpp, slide.mpp_source) == (pytest.approx(mpp), "file")


def test_without_properties_the_user_is_asked(tmp_path):
    write_pyramid(tmp_path / "a.dzi", noise((300, 200)))
    with pytest.raises(ResolutionError, match="--mpp"):
        open_slide(tmp_path / "a.dzi")


BROKEN = {
    "not well-formed": "<Image",
    "a number too many": '<Image TileSize="64x" Overlap="1" Format="png"><Size Width="300" Height="200"/></Image>',
    "DOCTYPE": '<!DOCTYPE Image [<!ENTITY a "b">]><Image TileSize="64" Overlap="0" Format="png">'
    '<Size Width="300" Height="200"/></Image>',
    "one <Size>": '<Image TileSize="64" Overlap="1" Format="png"></Image>',
    "<Collection>": "<Collection/>",
}


@pytest.mark.parametrize("reason", BROKEN)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_malformed_file_is_refused_with_the_reason(tmp_path, reason, encoding):
    write_pyramid(tmp_path / "a.dzi", noise((300, 200)))
    (tmp_path / "a.dzi").write_bytes(BROKEN[reason].encode(encoding))
    expected = "TileSize is '64x'" if reason == "a number too many" else reason
    with pytest.raises(SlideError, match=rf"a\.dzi.*deepzoom: .*{expected}"):
        open_slide(tmp_path / "a.dzi", mpp=0.5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"TileSize": 0}, "TileSize is '0'"),
        ({"TileSize": 100_000}, "TileSize is '100000'"),
        ({"Overlap": -1}, "Overlap is '-1'"),
        ({"Overlap": 65}, "Overlap is '65'"),
        ({"Width": 0}, "Width is '0'"),
        ({"Height": "9" * 30}, "Height is"),
        ({"Format": "../png"}, "Format is '../png'"),
        ({"Format": ""}, "Format is ''"),
        ({"Width": 1000}, "a_files/10; copy that folder"),
    ],
)
def test_absurd_layouts_are_refused_with_the_value(tmp_path, changes, reason):
    write_pyramid(tmp_path / "a.dzi", noise((300, 200)))
    write_dzi(tmp_path / "a.dzi", **changes)
    with pytest.raises(SlideError) as error:
        open_slide(tmp_path / "a.dzi", mpp=0.5)
    assert f"deepzoom: {reason}" in str(error.value) or reason in str(error.value)


def test_more_tiles_than_any_slide_has_are_refused(tmp_path):
    write_dzi(tmp_path / "a.dzi", TileSize=1, Overlap=0, Width=100_000, Height=100_000)
    (tmp_path / "a_files" / "17").mkdir(parents=True)
    with pytest.raises(SlideError, match="more than any slide has"):
        open_slide(tmp_path / "a.dzi", mpp=0.5)


def test_entities_in_the_properties_are_not_expanded(tmp_path):
    write_pyramid(tmp_path / "a.dzi", noise((300, 200)))
    text = '<!DOCTYPE image [<!ENTITY m "0.25">]><image><property><name>openslide.mpp-x</name><value>&m;</value>'
    text += "</property><property><name>openslide.mpp-y</name><value>&m;</value></property></image>"
    (tmp_path / "a_files" / "vips-properties.xml").write_text(text)
    with pytest.raises(ResolutionError):
        open_slide(tmp_path / "a.dzi")


def test_the_fingerprint_follows_the_pixels_and_not_only_the_size(tmp_path):
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_pyramid(tmp_path / f"{name}.dzi", noise((600, 400), seed))
        with open_slide(tmp_path / f"{name}.dzi", mpp=0.5) as slide:
            found.append(slide.fingerprint())
    assert found[0] == found[1] != found[2]


def test_closing_ends_reading(tmp_path):
    write_pyramid(tmp_path / "a.dzi", noise((300, 200)))
    slide = open_slide(tmp_path / "a.dzi", mpp=0.5)
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read_level(0, 0, 0, (10, 10))


def test_a_real_pyramid_has_its_size_resolution_and_no_seams(shared_data):
    path = shared_data / "slides" / "dzi" / "trypsin.dzi"
    with open_slide(path) as slide:
        assert slide.reader == "deepzoom"
        assert slide.size_px == (6535, 6285)
        assert slide.mpp == pytest.approx(0.50439, rel=1e-4)
        assert slide.level_sizes_px[1:] == ((3268, 3143), (1634, 1572), (817, 786), (409, 393), (205, 197))
        # Tiles are cut every 254 px; across a cut, neighbours differ as they do elsewhere.
        pixels = slide.read_level(254 * 9, 254 * 9, 0, (254 * 4, 254 * 4)).astype(float)
        for axis in (0, 1):
            steps = np.abs(np.diff(pixels, axis=axis)).mean(axis=(1 - axis, 2))
            at_cuts = steps[253::254]
            assert at_cuts.mean() < 1.2 * steps.mean()
        # The pixels that two tiles both hold agree, up to JPEG, with what is read.
        left = np.asarray(Image.open(path.parent / "trypsin_files" / "13" / "9_9.jpeg").convert("RGB")).astype(float)
        right = slide.read_level(254 * 9, 254 * 9, 0, (255, 254)).astype(float)
        assert np.abs(left[1:255, 255] - right[:, 254]).mean() < 8
        assert np.array_equal(left[1:255, 1:255], right[:, :254])
        # Level 1 shows the same place as level 0.
        small = slide.read_level(1000, 900, 1, (300, 300)).astype(float)
        large = slide.read_level(2000, 1800, 0, (600, 600)).astype(float)
        mean = large.reshape(300, 2, 300, 2, 3).mean(axis=(1, 3))
        assert np.abs(small - mean).mean() < np.abs(small[:, 1:] - mean[:, :-1]).mean()
        assert np.abs(small - mean).mean() < 6
