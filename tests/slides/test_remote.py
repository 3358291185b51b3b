"""Slides at addresses: the same pixels and fingerprint as the local file, and no secrets in what is shown."""

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile
from hypothesis import example, given
from hypothesis import strategies as st

from tests.extraction.driver import MeanColour
from wsi_mivpg.errors import ResolutionError, SlideError
from wsi_mivpg.extraction import SlideSettings, extract_slide
from wsi_mivpg.slides import READERS, open_slide
from wsi_mivpg.slides.address import is_address, named_path, shown_address, without_secrets
from wsi_mivpg.slides.readers.via_tiffslide import _first_l0_px


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files of a folder, also parts of them, and notes how many bytes it sent."""

    sent = 0

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
        if not path.is_file() or wanted is None:
            self.send_error(404)
            return
        whole = path.read_bytes()
        first, last = int(wanted[1]), min(int(wanted[2] or len(whole)), len(whole) - 1)
        part = whole[first : last + 1]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(whole)}")
        self.end_headers()
        if self.command == "GET":
            type(self).sent += len(part)
            self.wfile.write(part)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve `tmp_path` and return the address, without a slash at its end."""
    pytest.importorskip("aiohttp", reason="fsspec opens https:// with aiohttp: pip install 'wsi-mivpg[remote]'")
    handler = functools.partial(RangeHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def in_memory() -> Iterator[fsspec.AbstractFileSystem]:
    memory = fsspec.filesystem("memory")
    yield memory
    memory.rm("/", recursive=True)


def assert_same(address: str, path: Path) -> None:
    with open_slide(address) as remote, open_slide(path, reader="tiffslide") as local:
        assert remote.reader == "tiffslide"
        assert (remote.size_px, remote.mpp, remote.mpp_source) == (local.size_px, local.mpp, local.mpp_source)
        assert remote.level_sizes_px == local.level_sizes_px
        assert remote.fingerprint() == local.fingerprint()
        assert (remote.path.name, remote.path.stem) == (path.name, path.stem)
        for level in range(len(remote.downsamples)):
            assert np.array_equal(
                remote.read_level(37, 41, level, (200, 150)), local.read_level(37, 41, level, (200, 150))
            )
        assert np.array_equal(remote.read_region(101.5, 77, 64, 1.3), local.read_region(101.5, 77, 64, 1.3))


def test_a_slide_behind_http_is_the_local_one(server, tiled_slide):
    assert_same(f"{server}/a slide.tiff".replace(" ", "%20"), tiled_slide("a slide.tiff"))


def test_a_slide_in_memory_is_the_local_one(in_memory, tiled_slide):
    path = tiled_slide("b.tiff")
    in_memory.pipe("/folder/b.tiff", path.read_bytes())
    assert_same("memory://folder/b.tiff", path)


def test_only_parts_of_a_large_remote_slide_are_fetched(server, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4096, 4096, 3), dtype=np.uint8)
    tags = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "large.tiff", pixels, tile=(256, 256), photometric="rgb", **tags)
    RangeHandler.sent = 0
    with open_slide(f"{server}/large.tiff") as slide:
        assert np.array_equal(slide.read_level(2000, 300, 0, (300, 200)), pixels[300:500, 2000:2300])
    assert 0 < RangeHandler.sent < pixels.nbytes / 2


def test_errors_behind_http_show_the_address_without_its_secrets(server, tmp_path):
    (tmp_path / "text.svs").write_text("no slide")
    for name in ("absent.svs", "text.svs"):
        with pytest.raises(SlideError) as error:
            open_slide(f"{server}/{name}?key=SECRET&more=SECRET")
        assert str(error.value).startswith(f"{server}/{name}: cannot be opened from there")
        assert "SECRET" not in str(error.value)
        assert "copy the slide to this machine" in str(error.value)


def test_reading_after_the_server_lost_the_slide_is_an_error_without_secrets(server, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4096, 2048, 3), dtype=np.uint8)
    tags = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **tags)
    address = f"{server}/a.tiff"
    with open_slide(f"{address}?key=SECRET") as slide:
        path.unlink()
        with pytest.raises(SlideError) as error:
            slide.read_level(0, 2000, 0, (2048, 2000))
        with pytest.raises(SlideError, match="cannot be read any more") as lost:
            slide.fingerprint()
        assert (slide.source, repr(slide).count("SECRET")) == (address, 0)
    for message in (str(error.value), str(lost.value)):
        assert "SECRET" not in message
    assert str(error.value).startswith(f"{address}: cannot decode")


def test_what_is_no_slide_in_memory_is_refused_with_its_address(in_memory):
    in_memory.pipe("/a.svs", b"hello")
    for address in ("memory://a.svs", "memory://absent.svs"):
        with pytest.raises(SlideError, match=f"^{address}: cannot be opened from there"):
            open_slide(address)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(SlideError, match=r"^gopherx://host/a\.svs: cannot be opened from there"):
        open_slide("gopherx://host/a.svs")


def test_a_missing_resolution_names_the_address_and_the_user_s_is_taken(in_memory, tiled_slide):
    in_memory.pipe("/a.tiff", tiled_slide(mpp=None).read_bytes())
    with pytest.raises(ResolutionError, match=r"^memory://a\.tiff: .*--mpp"):
        open_slide("memory://a.tiff")
    with open_slide("memory://a.tiff", mpp=0.25) as slide:
        assert (slide.mpp, slide.mpp_source, slide.source) == (0.25, "user", "memory://a.tiff")


def test_only_tiffslide_reads_addresses(in_memory, tiled_slide):
    in_memory.pipe("/a.tiff", tiled_slide().read_bytes())
    with open_slide("memory://a.tiff", reader="tiffslide") as slide:
        assert slide.size_px == (1500, 1200)
    for name in set(READERS) - {"tiffslide"}:
        with pytest.raises(SlideError, match=f"{name} reads files only"):
            open_slide("memory://a.tiff", reader=name)
    with pytest.raises(SlideError, match=", ".join(READERS)):
        open_slide("memory://a.tiff", reader="bioformats")


def test_a_local_slide_s_source_is_its_path(tiled_slide):
    path = tiled_slide()
    with open_slide(str(path)) as slide:
        assert (slide.source, slide.path) == (str(path), path)


@pytest.mark.parametrize(
    ("address", "shown", "stem"),
    [
        ("https://user:SECRET@host:81/a/b%20c.svs?X-Sig=SECRET#SECRET", "https://host:81/a/b%20c.svs", "b c"),
        ("https://host?SECRET", "https://host", "host"),
        ("s3://bucket/odd?name#1.svs", "s3://bucket/odd?name#1.svs", "odd?name#1"),
        ("simplecache::https://SECRET@host/x.svs?SECRET", "simplecache::https://host/x.svs", "x"),
        ("zip://in/x.tiff::https://host/all.zip?SECRET", "zip://in/x.tiff::https://host/all.zip", "x"),
        ("sftp://me:SECRET@host/x.tiff", "sftp://host/x.tiff", "x"),
        ("memory://x.tiff", "memory://x.tiff", "x"),
    ],
)
def test_addresses_are_shown_without_secrets(address, shown, stem):
    assert is_address(address)
    assert shown_address(address) == shown
    assert named_path(address).stem == stem
    text = without_secrets(f"404, message='Not Found', url='{address}' ({address})", address)
    assert "SECRET" not in text
    assert shown in text


def test_a_library_s_own_spelling_of_an_address_shows_no_secrets_either():
    text = without_secrets("url='https://host/a b.svs?key=SECRET%3D'", "https://host/a%20b.svs?key=SECRET=")
    assert "SECRET" not in without_secrets("url='https://host/b.svs?key=SECRET%3D'", "https://host/b.svs?key=SECRET=")
    assert "host/a b" in text


@pytest.mark.parametrize(
    "source", ["/data/a.svs", "a.svs", "C:/a.svs", "a::b.svs", "://a.svs", Path("https://host/a.svs")]
)
def test_files_are_no_addresses(source):
    assert not is_address(source)


@given(st.integers(0, 10**6), st.floats(1, 300))
@example(63945, 536 / 42)
def test_tiffslide_takes_the_level_0_pixel_back_to_the_pixel_that_is_meant(index, downsample):
    assert int(_first_l0_px(index, downsample) / downsample) == index


def test_levels_of_odd_ratios_are_read_where_they_are(tmp_path):
    rng = np.random.default_rng(0)
    large, small = (rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in ((1003, 701), (250, 175)))
    tags = {"tile": (128, 128), "photometric": "rgb"}
    with tifffile.TiffWriter(tmp_path / "a.tiff") as tiff:
        tiff.write(large, subifds=0, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", **tags)
        tiff.write(small, subfiletype=1, **tags)
    with open_slide(tmp_path / "a.tiff", reader="tiffslide") as slide:
        for x in range(0, 240, 7):
            y = x // 2
            assert np.array_equal(slide.read_level(x, y, 1, (10, 9)), small[y : y + 9, x : x + 10])
        assert np.array_equal(slide.read_level(0, 0, 1, (250, 175)), small)


def test_an_address_gives_the_same_bag_as_its_local_file(server, tiled_slide, tmp_path):
    settings = SlideSettings(reader="tiffslide")
    path = tiled_slide("a b.tiff")
    local = extract_slide(path, MeanColour(), tmp_path / "local", settings=settings)
    remote = extract_slide(f"{server}/a%20b.tiff", MeanColour(), tmp_path / "remote", settings=settings)
    assert remote.bag_path.name == "a b.h5"
    assert remote.bag_path.read_bytes() == local.bag_path.read_bytes()


def test_a_server_that_is_lost_halfway_fails_the_slide_and_leaves_no_bag(server, tmp_path):
    # 27 MB, more than is fetched ahead.
    noise = np.random.default_rng(0).integers(-20, 20, (3000, 3000, 1))
    path = tmp_path / "a.tiff"
    pixels = np.clip(np.array([170, 90, 160]) + noise, 0, 255).astype(np.uint8)
    tags = {"tile": (256, 256), "resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, **tags)

    class Losing(MeanColour):
        def encode(self, tiles):
            path.unlink(missing_ok=True)
            return super().encode(tiles)

    with pytest.raises(SlideError, match=r"a\.tiff: it could not be reached all the time.*run again"):
        extract_slide(f"{server}/a.tiff", Losing(), tmp_path / "bags")
    assert not list((tmp_path / "bags").glob("*.h5"))
