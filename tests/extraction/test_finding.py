"""Which files are slides when files and folders are named."""

from pathlib import Path

import pytest

from wsi_mivpg.errors import SlideError
from wsi_mivpg.extraction.finding import find_slides


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_slides([folder])]


def test_a_folder_gives_its_slides_in_name_order_without_hidden_files(tmp_path):
    touch(tmp_path, "b.svs", "a.TIFF", "sub/c.ndpi", ".hidden.svs", "notes.txt")
    assert found(tmp_path) == ["a.TIFF", "b.svs", "sub/c.ndpi"]


def test_pictures_are_slides_only_when_they_are_named(tmp_path):
    names = ["a.png", "b.jpg", "c.jpeg", "d.bmp"]
    touch(tmp_path, *names)
    assert find_slides([tmp_path / name for name in names]) == [tmp_path / name for name in names]
    with pytest.raises(SlideError, match=r"no slides in this folder; known are .*\.dzi"):
        find_slides([tmp_path])


def test_a_pyramid_is_one_slide_and_its_folder_is_not_entered(tmp_path):
    touch(tmp_path, "x.dzi", "x_files/0/0_0.tif", "x_files/y.svs", "sub/z.DZI", "sub/z_files/1/0_0.tiff")
    touch(tmp_path, "other_files/w.svs")
    assert found(tmp_path) == ["other_files/w.svs", "sub/z.DZI", "x.dzi"]
