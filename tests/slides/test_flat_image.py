"""Flat pictures: their pixels as RGB over white, the resolution only where it can be true, and refusals."""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsi_mivpg.errors import ResolutionError, SlideError
from wsi_mivpg.slides import READERS, open_slide
from wsi_mivpg.slides.readers import flat_image
from wsi_mivpg.slides.readers.base import NotReadable
from wsi_mivpg.slides.readers.flat_image import FlatImageReader

SIZE = (301, 207)


def noise(size_px: tuple[int, int] = SIZE, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (size_px[1], size_px[0], channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(width: int, height: int, bits: int = 8) -> bytes:
    """Return a PNG with a valid header and next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "no_suffix"])
def test_lossless_pictures_are_exact(tmp_path, name):
    pixels = noise()
    options = {"format": "PNG"} if name == "no_suffix" else {"lossless": True} if name == "a.webp" else {}
    Image.fromarray(pixels).save(tmp_path / name, **options)
    with open_slide(tmp_path / name, mpp=0.5) as slide:
        assert (slide.reader, slide.downsamples) == ("flat-image", (1.0,))
        assert slide.level_sizes_px == (SIZE,)
        assert np.array_equal(slide.read_level(0, 0, 0, SIZE), pixels)
        assert np.array_equal(slide.read_region(13, 17, 50, 0.5), pixels[17:67, 13:63])


def test_a_jpeg_is_what_pil_decodes(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.jpeg", quality=90)
    expected = np.asarray(Image.open(tmp_path / "a.jpeg"))
    with open_slide(tmp_path / "a.jpeg", mpp=0.5) as slide:
        assert np.array_equal(slide.read_level(0, 0, 0, SIZE), expected)


def test_alpha_grey_and_palette_become_rgb_over_white(tmp_path):
    rgba = noise(channels=4)
    weight = rgba[..., 3:].astype(float) / 255
    over_white = rgba[..., :3] * weight + 255 * (1 - weight)
    grey = noise(channels=1)[..., 0]
    palette = Image.fromarray(noise()).quantize(200)
    see_through = palette.copy()
    see_through.info["transparency"] = 5
    clear = np.asarray(palette)[..., None] == 5
    expected = {
        "rgba": (Image.fromarray(rgba), over_white),
        "grey": (Image.fromarray(grey), np.repeat(grey[..., None], 3, axis=2)),
        "grey with alpha": (
            Image.merge("LA", [Image.fromarray(grey), Image.fromarray(rgba[..., 3])]),
            np.repeat(grey[..., None] * weight + 255 * (1 - weight), 3, axis=2),
        ),
        "palette": (palette, np.asarray(palette.convert("RGB"))),
        "palette with alpha": (see_through, np.where(clear, 255, np.asarray(palette.convert("RGB")))),
    }
    assert clear.any()
    for name, (picture, pixels) in expected.items():
        path = tmp_path / f"{name}.png"
        picture.save(path)
        with open_slide(path, mpp=0.5) as slide:
            assert np.abs(slide.read_level(0, 0, 0, SIZE) - pixels.astype(float)).max() <= 0.5 + 1e-3, name


def test_a_single_grey_tiff_that_others_refuse_opens(tmp_path):
    grey = noise(channels=1)[..., 0]
    tags = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="minisblack", **tags)
    for name in ("tile-once", "tiffslide"):
        with pytest.raises(SlideError):
            open_slide(tmp_path / "a.tif", reader=name)
    with open_slide(tmp_path / "a.tif", reader="flat-image") as slide:
        assert (slide.mpp, slide.mpp_source) == (pytest.approx(0.5), "tiff tags")
        assert np.array_equal(slide.read_level(0, 0, 0, SIZE)[..., 1], grey)


@given(st.floats(0.05, 2000))
def test_dpi_counts_only_where_a_microscope_can_have_it(tmp_path_factory, mpp):
    path = tmp_path_factory.mktemp("dpi") / "a.png"
    dpi = 25_400 / mpp
    Image.new("RGB", (8, 8)).save(path, dpi=(dpi, dpi))
    stated = 1e6 / int(dpi / 0.0254 + 0.5)  # a PNG states whole pixels per metre
    found = FlatImageReader(path).mpp
    assert found == (pytest.approx((stated, stated), rel=1e-6) if 0.05 <= stated <= 20 else None)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp"])
def test_screen_dpi_is_no_resolution_and_the_way_out_is_named(tmp_path, name):
    for dpi in (72, 96, 300):
        Image.fromarray(noise()).save(tmp_path / name, dpi=(dpi, dpi))
        with pytest.raises(ResolutionError, match="--mpp"):
            open_slide(tmp_path / name)


def test_a_jpeg_with_a_microscope_s_dpi_has_its_resolution(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.jpg", dpi=(50_800, 50_800))
    with open_slide(tmp_path / "a.jpg") as slide:
        assert (slide.mpp, slide.mpp_source) == (pytest.approx(0.5), "file")


def refused(path: Path) -> str:
    with pytest.raises(SlideError, match=path.name):
        open_slide(path, mpp=0.5)
    with pytest.raises(NotReadable) as error:
        FlatImageReader(path)
    return str(error.value)


def test_16_bits_are_refused(tmp_path):
    (tmp_path / "rgb.png").write_bytes(png(300, 200, bits=16))
    Image.fromarray(np.zeros((60, 60), np.uint16)).save(tmp_path / "grey.png")
    tifffile.imwrite(tmp_path / "grey.tif", np.zeros((60, 60), np.uint16))
    for name in ("rgb.png", "grey.png", "grey.tif"):
        assert "16 bits a sample" in refused(tmp_path / name)


def test_other_colours_and_several_pictures_are_refused(tmp_path):
    Image.new("CMYK", SIZE).save(tmp_path / "a.jpg")
    assert "CMYK" in refused(tmp_path / "a.jpg")
    Image.new("1", SIZE).save(tmp_path / "a.bmp")
    assert "convert it to 8-bit RGB" in refused(tmp_path / "a.bmp")
    frames = [Image.fromarray(noise(channels=1, seed=i)[..., 0]) for i in range(3)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(NotReadable, match="3 pictures in one file"):
        FlatImageReader(tmp_path / "a.tif")


def test_a_bomb_is_refused_by_its_header(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png(40_000, 40_000))
    assert "40000x40000 px by its header" in refused(tmp_path / "bomb.png")


def test_large_pictures_below_the_limit_open_without_pil_s_own(tmp_path):
    (tmp_path / "large.png").write_bytes(png(20_000, 20_000))
    with open_slide(tmp_path / "large.png", mpp=0.5) as slide:
        assert slide.size_px == (20_000, 20_000)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"RIFF0000WAVE"])
def test_headers_without_a_picture_are_refused(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    refused(tmp_path / "broken.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp"])
def test_a_truncated_picture_is_an_error_when_it_is_read(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(noise()).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_slide(path, mpp=0.5) as slide:
        for _ in range(2):
            with pytest.raises(SlideError, match=f"{name}.*cannot be decoded"):
                slide.read_level(0, 0, 0, (10, 10))


def test_many_threads_decode_once(tmp_path, monkeypatch):
    pixels = noise((900, 700))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    decoded = []
    decode = flat_image.decoded_picture
    monkeypatch.setattr(flat_image, "decoded_picture", lambda *given: decoded.append(1) or decode(*given))
    with open_slide(tmp_path / "a.png", mpp=0.5) as slide, ThreadPoolExecutor(8) as pool:
        assert decoded == []
        regions = list(pool.map(lambda x: slide.read_level(x, 5, 0, (100, 90)), range(0, 800, 20)))
    assert decoded == [1]
    assert all(np.array_equal(seen, pixels[5:95, 20 * i : 20 * i + 100]) for i, seen in enumerate(regions))


def test_closing_ends_reading_and_regions_are_copies(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    slide = open_slide(tmp_path / "a.png", mpp=0.5)
    slide.read_level(0, 0, 0, (10, 10))[:] = 0
    assert np.array_equal(slide.read_level(0, 0, 0, (10, 10)), noise()[:10, :10])
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read_level(0, 0, 0, (10, 10))


def test_a_pyramid_is_never_taken_for_one_picture(tiled_slide):
    with open_slide(tiled_slide(levels=2)) as slide:
        assert slide.reader == "tile-once"
    with pytest.raises(SlideError, match="2 pictures in one file"):
        open_slide(tiled_slide(levels=2), reader="flat-image")


def test_a_reader_can_be_pinned_and_a_wrong_name_lists_all(tmp_path, tiled_slide):
    tiled, flat = tiled_slide(), tmp_path / "a.png"
    Image.fromarray(noise()).save(flat)
    opens = {"tile-once": tiled, "openslide": tiled, "tiffslide": tiled, "flat-image": flat}
    for name, path in opens.items():
        with open_slide(path, mpp=0.5, reader=name) as slide:
            assert slide.reader == name
    for name in ("tile-once", "openslide", "tiffslide", "deepzoom"):
        with pytest.raises(SlideError, match=rf"a\.png.*{name}: "):
            open_slide(flat, mpp=0.5, reader=name)
    with pytest.raises(SlideError, match=", ".join(READERS)):
        open_slide(flat, reader="bioformats")
    assert list(READERS)[-1] == "flat-image"
