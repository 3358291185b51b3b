"""Truncated, bit-flipped and hostile files end in a named error, or are read as far as they go."""

import struct

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.slides.damage import LAYOUTS, damaged, entries, healthy, read_all
from wsi_mivpg.errors import SlideError
from wsi_mivpg.slides import open_slide
from wsi_mivpg.slides.tiff_health import tiff_problem

_WIDTH, _LENGTH, _TILE_WIDTH, _OFFSETS, _COUNTS = 256, 257, 322, 324, 325


@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
def test_healthy_files_are_read(tmp_path, layout):
    path = tmp_path / "healthy.tiff"
    path.write_bytes(healthy(layout))
    assert read_all(path) == "read"


# The same files at every run: what a new one does to a foreign library's process is the fuzzer's to find.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(LAYOUTS) - 1), st.integers(0, 2**32 - 1))
def test_damaged_files_end_in_an_answer_or_a_named_error(tmp_path, layout, seed):
    path = tmp_path / "damaged.tiff"
    path.write_bytes(damaged(layout, seed))
    assert read_all(path) in {"read", "partly read", "SlideError", "ResolutionError"}


@pytest.mark.parametrize(("kept_bytes", "said"), [(0, "the file is empty"), (200, "is missing: the file ends before")])
def test_a_file_cut_short_is_to_be_copied_again(tmp_path, kept_bytes, said):
    content = bytearray(healthy(0))
    struct.pack_into("<I", content, 4, len(content) - 8)  # as scanners write it: the first directory comes last
    path = tmp_path / "cut.svs"
    path.write_bytes(content[:kept_bytes])
    with pytest.raises(SlideError, match=rf"cut\.svs: .*{said}.*copy it again"):
        open_slide(path)


def test_an_ndpi_larger_than_4_gb_is_not_taken_for_damaged(tmp_path):
    path = tmp_path / "large.ndpi"
    first = (1 << 32) + 1000
    with path.open("wb") as stream:  # nearly all of it is a hole
        stream.write(struct.pack("<2sHQ", b"II", 42, first))
        stream.seek(first & 0xFFFFFFFF)
        stream.write(b"\xff" * 16)  # where a link of 4 bytes would lead
        stream.seek(first)
        stream.write(struct.pack("<HHHIIQ", 1, 256, 4, 1, 600, 0))
    assert tiff_problem(path) is None


def with_entry(content: bytes, tag: int, value: int) -> bytes:
    """Return a TIFF whose first entry of `tag` holds `value`."""
    changed = bytearray(content)
    at = next(at for at in entries(content) if struct.unpack_from("<H", content, at)[0] == tag)
    kind = struct.unpack_from("<H", content, at + 2)[0]
    struct.pack_into("<HI", changed, at + 2, 4 if kind == 3 else kind, 1)
    struct.pack_into("<I", changed, at + 8, value)
    return bytes(changed)


@pytest.mark.parametrize("tag", [_WIDTH, _LENGTH, _TILE_WIDTH])
@pytest.mark.parametrize("value", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_absurd_sizes_are_refused(tmp_path, tag, value):
    path = tmp_path / "huge.tiff"
    path.write_bytes(with_entry(healthy(0), tag, value))
    with pytest.raises(SlideError, match=r"huge\.tiff"), open_slide(path, mpp=0.5) as slide:
        slide.read_region(0, 0, 256, 0.5)


@pytest.mark.parametrize("layout", range(len(LAYOUTS)))
@pytest.mark.parametrize(("tag", "value"), [(_OFFSETS, 0xFFFFFF00), (_COUNTS, 0xFFFFFFF0)])
def test_tiles_outside_the_file_are_an_error(tmp_path, layout, tag, value):
    content = bytearray(healthy(layout))
    at = next(at for at in entries(bytes(content)) if struct.unpack_from("<H", content, at)[0] == tag)
    kind, count, place = struct.unpack_from("<HII", content, at + 2)
    assert count == 6
    assert kind in (3, 4)
    struct.pack_into("<H" if kind == 3 else "<I", content, place, value & (0xFFFF if kind == 3 else 0xFFFFFFFF))
    path = tmp_path / "outside.tiff"
    path.write_bytes(content)
    with pytest.raises(SlideError, match=r"outside\.tiff"), open_slide(path, mpp=0.5) as slide:
        slide.read_region(0, 0, 256, 0.5)


def test_a_loop_of_directories_ends(tmp_path):
    content = bytearray(healthy(0))
    struct.pack_into("<I", content, entries(bytes(content))[-1] + 12, struct.unpack_from("<I", content, 4)[0])
    path = tmp_path / "loop.tiff"
    path.write_bytes(content)
    assert read_all(path) in {"read", "SlideError"}


@pytest.mark.parametrize("fast_decode", [False, True])
def test_a_jpeg_tile_that_claims_a_huge_size_is_refused_before_it_is_decoded(tmp_path, fast_decode):
    content = bytearray(healthy(1))
    with tifffile.TiffFile(_written(tmp_path, content)) as tiff:
        start, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    frame = content.index(b"\xff\xc0", start, start + count)
    struct.pack_into(">HH", content, frame + 5, 65_500, 65_500)
    with (
        pytest.raises(SlideError, match=r"bomb\.tiff"),
        open_slide(_written(tmp_path, content), mpp=0.25, fast_decode=fast_decode) as slide,
    ):
        slide.read_region(0, 0, 128, 0.5)


def _written(folder, content):
    path = folder / "bomb.tiff"
    path.write_bytes(content)
    return path


def test_fast_pixels_are_close_to_the_mean_of_the_area(tmp_path):
    """Smooth tissue-like pixels; what the decoder leaves out is their finest detail."""
    y, x = np.mgrid[:700, :900]
    pixels = np.stack([150 + 60 * np.sin(x / 9), 120 + 50 * np.cos(y / 7), 160 + 40 * np.sin((x + y) / 11)], axis=-1)
    path = tmp_path / "smooth.tiff"
    jpeg = {"compression": "jpeg", "compressionargs": {"level": 95}, "photometric": "rgb"}
    tifffile.imwrite(path, pixels.astype(np.uint8), tile=(256, 256), **jpeg)
    for mpp in (0.25, 0.2528, 0.263):
        with open_slide(path, mpp=mpp) as exact, open_slide(path, mpp=mpp, fast_decode=True) as fast:
            assert fast.reader == "tile-once-fast"
            assert fast.downsamples[:3] == (1.0, 2.0, 4.0)
            one, two = (slide.read_region(100, 60, 200, 0.5).astype(float) for slide in (exact, fast))
        assert 10 * np.log10(255**2 / np.mean((one - two) ** 2)) > 36
        assert abs((one - two).mean()) < 0.5


def test_fast_decode_leaves_native_pixels_as_they_are(tmp_path):
    path = tmp_path / "slide.tiff"
    path.write_bytes(healthy(0))
    with open_slide(path) as exact, open_slide(path, fast_decode=True) as fast:
        assert np.array_equal(exact.read_region(30, 40, 200, 0.5), fast.read_region(30, 40, 200, 0.5))
