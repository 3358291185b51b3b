"""Which files are slides when files and folders are named."""

from pathlib import Path

import pytest
from PIL import Image

from wsi_mivpg.errors import SlideError
from wsi_mivpg.extraction import SlideInput, find_slides, slide_input, unique_ids


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path) -> list[str]:
    return [str(slide.source.relative_to(folder)) for slide in find_slides([folder])]


def sources(slides: list[SlideInput]) -> list[Path | str]:
    return [slide.source for slide in slides]


def test_a_folder_gives_its_slides_in_name_order_without_hidden_files(tmp_path):
    touch(tmp_path, "b.svs", "a.TIFF", "sub/c.ndpi", ".hidden.svs", "notes.txt")
    assert found(tmp_path) == ["a.TIFF", "b.svs", "sub/c.ndpi"]


def test_pictures_are_slides_only_when_they_are_named(tmp_path):
    names = ["a.png", "b.jpg", "c.jpeg", "d.bmp"]
    touch(tmp_path, *names)
    assert sources(find_slides([tmp_path / name for name in names])) == [tmp_path / name for name in names]
    with pytest.raises(SlideError, match=r"no slides in this folder; known are .*\.dzi"):
        find_slides([tmp_path])


def test_a_pyramid_is_one_slide_and_its_folder_is_not_entered(tmp_path):
    touch(tmp_path, "x.dzi", "x_files/0/0_0.tif", "x_files/y.svs", "sub/z.DZI", "sub/z_files/1/0_0.tiff")
    touch(tmp_path, "other_files/w.svs")
    assert found(tmp_path) == ["other_files/w.svs", "sub/z.DZI", "x.dzi"]


def test_slides_are_found_in_folders_and_named_files_are_taken_as_they_are(tiled_slide, tmp_path):
    a, b = tiled_slide("in/a.tiff"), tiled_slide("in/deep/B.TIFF")
    (tmp_path / "in" / "notes.txt").write_text("no slide")
    (tmp_path / "in" / ".hidden.svs").write_text("")
    assert sources(find_slides([tmp_path / "in", a])) == [a, b]
    assert sources(find_slides([tmp_path / "in" / "notes.txt"])) == [tmp_path / "in" / "notes.txt"]


def test_an_empty_folder_and_a_missing_path_are_errors(tmp_path):
    with pytest.raises(SlideError, match="no slides in this folder"):
        find_slides([tmp_path])
    with pytest.raises(SlideError, match=r"absent\.svs"):
        find_slides([tmp_path / "absent.svs"])


def test_two_slides_of_one_name_are_both_named(tiled_slide, tmp_path):
    a, b = tiled_slide("x/a.tiff"), tiled_slide("y/a.tif")
    with pytest.raises(SlideError, match=rf"{a}.*{b}"):
        unique_ids([slide_input(a), slide_input(b)])


def test_a_pattern_takes_the_place_of_the_known_suffixes(tmp_path):
    touch(tmp_path, "a.png", "HE/b.png", "HE/b.svs", "HE/deep/c.png", "IHC/d.png", ".thumbs/e.png")
    assert [slide.slide_id for slide in find_slides([tmp_path], pattern="*.png")] == ["b", "c", "d", "a"]
    assert [slide.slide_id for slide in find_slides([tmp_path], pattern="HE/*.png")] == ["b", "c"]
    with pytest.raises(SlideError, match=r"no slides in this folder; the pattern is \*\.ndpi"):
        find_slides([tmp_path], pattern="*.ndpi")


def test_a_manifest_names_slides_cases_and_resolutions(tmp_path):
    manifest = tmp_path / "cohort.csv"
    manifest.write_text(
        "slide_id,path,case_id,mpp\ns1,scans/1.svs,c1,0.25\ns2,/data/2.svs,c1,\ns3,s3://bucket/3.svs,,\n"
    )
    assert find_slides([manifest]) == [
        SlideInput("s1", tmp_path / "scans/1.svs", "c1", 0.25),
        SlideInput("s2", Path("/data/2.svs"), "c1"),
        SlideInput("s3", "s3://bucket/3.svs"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("slide,file\na,b\n", r"the columns are .*it needs slide_id,path"),
        ("slide_id,path\n", "no slides in it"),
        ("slide_id,path\na,\n", "line 2: slide_id 'a', path ''"),
        ("slide_id,path\n../a,b.svs\n", r"line 2: slide_id '\.\./a'"),
        ("slide_id,path,mpp\na,b.svs,20x\n", "line 2: mpp is '20x'"),
    ],
)
def test_a_malformed_manifest_names_its_line(tmp_path, text, problem):
    (tmp_path / "cohort.csv").write_text(text)
    with pytest.raises(SlideError, match=rf"cohort\.csv.*{problem}"):
        find_slides([tmp_path / "cohort.csv"])


def test_addresses_are_slides_and_show_no_secrets(tmp_path):
    (slide,) = find_slides(["https://user:key@host/scans/a%20b.svs?token=secret"])
    assert slide.slide_id == "a b"
    assert slide.shown == "https://host/scans/a%20b.svs"


def test_folders_of_patches_are_slides_where_that_is_said(tmp_path):
    for name in ("s1/0.png", "s1/1.png", "s2/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    slides = find_slides([tmp_path], patches=True)
    assert [(slide.slide_id, len(slide.patches.paths)) for slide in slides] == [("s1", 2), ("s2", 1)]
