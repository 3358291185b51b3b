"""Data sets are read in the forms in which they are published; what is not found is counted, and never hidden."""

import contextlib
import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.provenance import bag_on_disk
from wsi_mivpg.cohorts.case import Case, read_manifest, write_manifest
from wsi_mivpg.cohorts.importers import FORMATS, Imported, import_cohort
from wsi_mivpg.errors import CohortError

UUID = "83F8BC4B-2F62-4B72-B1B2-8A7C3E0C6B2C"
Dump = Callable[[str, object], Path]


@pytest.fixture
def dump(tmp_path: Path) -> Dump:
    def write(name: str, value: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
        return path

    return write


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def by_id(made: Imported) -> dict[str, Case]:
    return {case.case_id: case for case in made.cases}


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


HISTGEN = {
    "train": [{"id": f"TCGA-3X-AAVA-01Z-00-DX1.{UUID}", "report": "One.", "image_path": [], "split": "train"}],
    "val": [{"id": "TCGA-AA-0001-01A-01-TS1.X", "report": "Two.", "image_path": [], "split": "val"}],
    "test": [{"id": "TCGA-AA-0002-01Z-00-DX1.Y", "report": "Three.", "image_path": [], "split": "test"}],
}


def test_histgen_keeps_its_splits_and_finds_its_bags(dump: Dump, tmp_path: Path) -> None:
    bags = touch(tmp_path / "pt", f"TCGA-3X-AAVA-01Z-00-DX1.{UUID}.pt", "TCGA-AA-0001-01A-01-TS1.X.pt", "other.pt")
    made = import_cohort("histgen", dump("annotation.json", HISTGEN), bags=bags)
    assert [(case.patient, case.split, case.reports) for case in made.cases] == [
        ("TCGA-3X-AAVA", "train", ("One.",)),
        ("TCGA-AA-0001", "val", ("Two.",)),
    ]
    assert names(made.cases[0].bag_paths) == [f"TCGA-3X-AAVA-01Z-00-DX1.{UUID}.pt"]
    assert made.left_out == {f"cases without a bag in {bags}": 1, f"files of no case in {bags}": 1}


def test_r2gen_finds_its_pictures_in_their_folders(dump: Dump, tmp_path: Path) -> None:
    entry = {
        "id": "CXR2384_IM-0942",
        "report": "Clear.",
        "image_path": ["CXR2384_IM-0942/0.png", "CXR2384_IM-0942/1.png"],
    }
    other = {"id": "CXR1_IM-0001", "report": "Dense.", "image_path": ["CXR1_IM-0001/0.png", "CXR1_IM-0001/1.png"]}
    images = touch(tmp_path / "images", "CXR2384_IM-0942/0.png", "CXR2384_IM-0942/1.png", "CXR1_IM-0001/0.png")
    made = import_cohort("r2gen", dump("a.json", {"train": [entry], "val": [other], "test": []}), images=images)
    found = by_id(made)
    assert [path.relative_to(images).as_posix() for path in found["CXR2384_IM-0942"].image_paths] == entry["image_path"]
    assert made.incomplete == ("CXR1_IM-0001",)


def test_pathtext_folders_are_cases_of_patients(tmp_path: Path) -> None:
    for place, text in {
        "TCGA_BRCA/TCGA-A2-A1FX": "Ductal.",
        "TCGA_BLCA/TCGA-BL-0001": "Urothelial.",
        "TCGA_BLCA/X": "",
    }.items():
        folder = tmp_path / "PathText" / place
        touch(folder, "report.pdf")
        (folder / "annotation").write_text(json.dumps(text))
    bags = touch(tmp_path / "bags", "TCGA-A2-A1FX-01Z-00-DX1.h5", "TCGA-A2-A1FX-01Z-00-DX2.h5", "TCGA-BL-0001.pt")
    made = import_cohort("pathtext", tmp_path / "PathText", bags=bags)
    found = by_id(made)
    assert names(found["TCGA-A2-A1FX"].bag_paths) == ["TCGA-A2-A1FX-01Z-00-DX1.h5", "TCGA-A2-A1FX-01Z-00-DX2.h5"]
    assert (found["TCGA-BL-0001"].reports, found["TCGA-BL-0001"].attributes["project"]) == (
        ("Urothelial.",),
        "TCGA_BLCA",
    )
    assert made.left_out["annotations without text"] == 1


def test_reg2025_keeps_a_specimens_slides_in_one_patient(dump: Dump, tmp_path: Path) -> None:
    report = "Breast, core-needle biopsy;\n  Invasive carcinoma of no special type, grade II"
    entries = [{"id": f"PIT_01_0000{number}_0{slide}.tiff", "report": report} for number in (1, 2) for slide in (1, 2)]
    slides = touch(tmp_path / "train", *(entry["id"] for entry in entries))
    made = import_cohort("reg2025", dump("train.json", entries), images=slides)
    assert [case.patient for case in made.cases] == ["PIT_01_00001"] * 2 + ["PIT_01_00002"] * 2
    assert names(made.cases[3].slide_paths) == ["PIT_01_00002_02.tiff"]
    assert (made.cases[0].reports, made.cases[0].attributes) == ((report,), {"organ": "breast"})


HISTAI = {
    "diagnosis": "Benign skin neoplasms",
    "conclusion": "Intradermal melanocytic nevus",
    "diff_diagnosis": None,
    "micro_protocol": "Intradermal melanocytic nevus of the skin",
    "additional_info": "",
    "age": 37,
    "gender": "f",
    "icd10": "D22",
    "specialization": "Skin",
    "case_mapping": "histai/HISTAI-skin-b2/case_1338",
    "grossing": "Head and neck: One fragment, 2×4 mm",
}


def test_histai_cases_have_their_h_and_e_slides_and_sections_that_can_be_dropped(dump: Dump, tmp_path: Path) -> None:
    from wsi_mivpg.cohorts.report_text import prepare_report

    bare = {"case_mapping": "histai/HISTAI-skin-b2/case_13380", "conclusion": "", "micro_protocol": None}
    source = dump("metadata.json", [HISTAI, bare])
    case = "HISTAI-skin-b2/case_1338"
    slides = touch(
        tmp_path / "histai",
        f"{case}/slide_H&E_0.tiff",
        f"{case}/slide_40X_H&E_1.tiff",
        f"{case}/slide_S100_0.tiff",
        "HISTAI-skin-b2/case_13380/slide_H&E_0.tiff",
    )
    made = import_cohort("histai", source, images=slides)
    (found,) = made.cases
    assert names(found.slide_paths) == ["slide_40X_H&E_1.tiff", "slide_H&E_0.tiff"]
    assert found.case_id == "HISTAI-skin-b2_case_1338"
    assert (found.attributes["age"], found.attributes["specialization"]) == ("37", "Skin")
    assert made.left_out["cases without a report"] == 1
    assert prepare_report(found.reports[0], ["gross"]).text == (
        "Microscopic description: Intradermal melanocytic nevus of the skin\nConclusion: Intradermal melanocytic nevus"
    )


@pytest.mark.parametrize(
    "bag",
    [
        "HISTAI-skin-b2/case_1338/slide_H&E_0.h5",
        "HISTAI-skin-b2_case_1338_slide_H&E_0.h5",
        "case_1338/slide_H&E_0.h5",
        "1338_slide_H&E_0.h5",
    ],
)
def test_histai_bags_are_found_however_flat_they_lie(dump: Dump, tmp_path: Path, bag: str) -> None:
    source = dump("case.json", HISTAI)
    folder = touch(tmp_path / "bags", bag, bag.replace("1338", "13380"), bag.replace("H&E", "S100"))
    (case,) = import_cohort("histai", source, bags=folder).cases
    assert case.bag_paths == (folder / bag,)


@pytest.mark.parametrize(
    ("form", "image"),
    [
        ("slidechat", ["./BRCA/TCGA-A2-A1FX-01Z-00-DX1.csv"]),
        ("llava", "TCGA-A2-A1FX-01Z-00-DX1.pt"),
    ],
)
def test_conversations_give_the_first_answer_about_a_slide(
    dump: Dump, tmp_path: Path, form: str, image: object
) -> None:
    def talk(*turns: str) -> list[dict[str, str]]:
        return [{"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate(turns)]

    entries = [
        {"id": "0", "image": image, "conversations": talk("<image>\nDescribe it.", "Ductal carcinoma.", "Grade?", "3")},
        {"id": "1", "image": image, "conversations": talk("<image>\nWhich stage?", "pT2")},
        {"id": "2", "conversations": talk("Hello", "Hello")},
    ]
    bags = touch(tmp_path / "bags", f"TCGA-A2-A1FX-01Z-00-DX1.{UUID}.h5", "TCGA-A2-A1FX-01Z-00-DX10.h5")
    made = import_cohort(form, dump("caption.json", entries), bags=bags)
    (case,) = made.cases
    assert (case.case_id, case.patient) == ("TCGA-A2-A1FX-01Z-00-DX1", "TCGA-A2-A1FX")
    assert (case.reports, case.attributes["question"]) == (("Ductal carcinoma.",), "Describe it.")
    assert names(case.bag_paths) == [f"TCGA-A2-A1FX-01Z-00-DX1.{UUID}.h5"]
    assert made.left_out == {
        "further answers of a conversation": 1,
        "further conversations about a slide": 1,
        "conversations without a slide": 1,
        f"files of no case in {bags}": 1,
    }


IDS = [character * 32 for character in "abc"]
CAPTIONS = (
    "id,subtype,text\n"
    f'{IDS[0]},Papillary adenocarcinoma," Large papillary structures, in the epithelium. "\n'
    f"{IDS[1]},Mucinous adenocarcinoma,Cells in mucus.\n"
    f"{IDS[2]},Mucinous adenocarcinoma,No patch of this one.\n"
)


def test_patchgastric_joins_captions_and_patches_in_its_doubled_folder(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text(CAPTIONS)
    patches = [f"patches_captions/{name}_{number:010x}.jpg" for name in IDS[:2] for number in range(3)]
    folder = touch(tmp_path / "patches_captions", *patches, f"patches_captions/{'d' * 32}_00.jpg")
    made = import_cohort("patchgastric", tmp_path / "captions.csv", images=folder)
    found = by_id(made)
    assert set(found) == set(IDS[:2])
    assert len(found[IDS[0]].image_paths) == 3
    assert all(path.name.startswith(IDS[0]) for path in found[IDS[0]].image_paths)
    assert found[IDS[0]].reports == ("Large papillary structures, in the epithelium.",)
    assert found[IDS[0]].attributes == {"subtype": "Papillary adenocarcinoma"}
    assert made.left_out == {f"cases without a file in {folder}": 1, f"files of no case in {folder}": 1}


def test_patchgastrics_bags_are_called_as_the_slide(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text(CAPTIONS)
    bag_on_disk(tmp_path / "bags" / f"{IDS[1]}.h5")
    (case,) = import_cohort("patchgastric", tmp_path, bags=tmp_path / "bags").cases
    assert case.bag_paths == (tmp_path / "bags" / f"{IDS[1]}.h5",)


def test_patchgastric_rows_that_contradict_are_refused_and_equal_ones_counted(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text(CAPTIONS + CAPTIONS.splitlines()[2] + "\n")
    assert import_cohort("patchgastric", path).left_out == {"rows that are there twice": 1}
    path.write_text(CAPTIONS + f"{IDS[1]},x,Other words.\n")
    with pytest.raises(CohortError, match=r"line 5: id 'b{32}' has another caption above"):
        import_cohort("patchgastric", path)


def test_the_real_captions_are_read_whole(shared_data: Path) -> None:
    made = import_cohort("patchgastric", shared_data / "text" / "patchgastric_captions.csv")
    assert len(made.cases) == len({case.case_id for case in made.cases}) == 991
    assert len({case.attributes["subtype"] for case in made.cases}) == 10
    with (shared_data / "text" / "patchgastric_captions.csv").open(newline="") as stream:
        stated = {row["id"]: row["text"].strip() for row in csv.DictReader(stream)}
    assert {case.case_id: case.reports for case in made.cases} == {name: (text,) for name, text in stated.items()}
    assert 236 <= len(set(stated.values())) <= 239


def test_karpathys_coco_has_five_captions_a_picture_and_restval_trains(dump: Dump, tmp_path: Path) -> None:
    def image(number: int, split: str) -> dict[str, object]:
        file = f"COCO_val2014_{number:012}.jpg"
        said = [{"tokens": ["a"], "raw": f"A man {k} \n rides.", "imgid": 0, "sentid": k} for k in range(5)]
        return {"filepath": "val2014", "filename": file, "cocoid": number, "split": split, "sentences": said}

    splits = ["train", "restval", "val", "test"]
    data = {"images": [image(number, split) for number, split in enumerate(splits)], "dataset": "coco"}
    images = touch(tmp_path / "coco", *(f"val2014/COCO_val2014_{number:012}.jpg" for number in range(4)))
    bags = touch(tmp_path / "bags", *(f"COCO_val2014_{number:012}.h5" for number in range(4)))
    made = import_cohort("coco", dump("dataset_coco.json", data), images=images, bags=bags)
    assert [case.split for case in made.cases] == ["train", "train", "val", "test"]
    assert made.cases[3].reports == tuple(f"A man {k} rides." for k in range(5))
    assert made.cases[3].image_paths == (images / "val2014" / f"COCO_val2014_{3:012}.jpg",)
    assert names(made.cases[3].bag_paths) == [f"COCO_val2014_{3:012}.h5"]
    assert made.left_out == {}


def test_cocos_own_annotations_join_pictures_and_captions(dump: Dump) -> None:
    data = {
        "images": [{"id": 9, "file_name": "COCO_train2014_000000000009.jpg"}, {"id": 25, "file_name": "25.jpg"}],
        "annotations": [
            {"image_id": 9, "id": 1, "caption": "Food on a plate."},
            {"image_id": 9, "id": 2, "caption": "Bread and fruit."},
        ],
    }
    made = import_cohort("coco", dump("captions_train2014.json", data))
    assert [(case.case_id, case.reports, case.split) for case in made.cases] == [
        ("COCO_train2014_000000000009", ("Food on a plate.", "Bread and fruit."), None)
    ]
    assert made.left_out == {"pictures without a caption": 1}


@pytest.fixture
def abo(tmp_path: Path) -> Path:
    """Two listings' files, one of them packed, and the packed table of images, as Amazon publishes them."""
    folder = tmp_path / "abo"
    products = [
        {
            "item_id": "B07CHAIR01",
            "3dmodel_id": "B07MODEL01",
            "main_image_id": "81a",
            "other_image_id": ["91b", "71c"],
            "item_name": [{"language_tag": "de_DE", "value": "Stuhl"}, {"language_tag": "en_US", "value": "Oak chair"}],
            "product_type": [{"value": "CHAIR"}],
        },
        {"item_id": "B07LAMP001", "main_image_id": "61d", "item_name": [{"language_tag": "en_IN", "value": "Lamp"}]},
        {"item_id": "B07BARE001", "item_name": [{"language_tag": "en_US", "value": "No picture"}]},
        {"item_id": "B07RUG0001", "main_image_id": "61d", "item_name": [{"language_tag": "ja_JP", "value": "x"}]},
    ]
    (folder / "listings" / "metadata").mkdir(parents=True)
    (folder / "images" / "metadata").mkdir(parents=True)
    lines = [json.dumps(product) for product in products]
    with gzip.open(folder / "listings" / "metadata" / "listings_0.json.gz", "wt") as stream:
        stream.write("\n".join(lines[:3]) + "\n")
    (folder / "listings" / "metadata" / "listings_f.json").write_text("\n".join([lines[3], lines[0]]) + "\n")
    with gzip.open(folder / "images" / "metadata" / "images.csv.gz", "wt") as stream:
        stream.write("image_id,height,width,path\n81a,9,9,14/14fe8812.jpg\n91b,9,9,15/14fe8812.jpg\n")
        stream.write("71c,9,9,da/daab0cad.jpg\n61d,9,9,0a/0a11.jpg\n")
    touch(folder / "images" / "small", "14/14fe8812.jpg", "15/14fe8812.jpg", "da/daab0cad.jpg", "0a/0a11.jpg")
    return folder


def test_abo_products_have_all_their_pictures_the_main_one_first(abo: Path) -> None:
    small = abo / "images" / "small"
    made = import_cohort("abo", abo, images=small)
    found = by_id(made)
    assert [path.relative_to(small).as_posix() for path in found["B07CHAIR01"].image_paths] == [
        "14/14fe8812.jpg",
        "15/14fe8812.jpg",
        "da/daab0cad.jpg",
    ]
    assert (found["B07CHAIR01"].reports, found["B07CHAIR01"].attributes) == (("Oak chair",), {"product_type": "CHAIR"})
    assert found["B07LAMP001"].reports == ("Lamp",)
    assert made.left_out == {
        "products without a picture": 1,
        "products without a caption": 1,
        "further listings of a product": 1,
    }


@pytest.mark.parametrize(
    "table",
    [
        'B07MODEL01,general,"A chair of oak, with arms"\nB07MODEL01,compositional,Four legs and a seat\n',
        'B07MODEL01,"A chair of oak, with arms"\n',
        'uid,caption\nB07CHAIR01,"A chair of oak, with arms"\n',
    ],
)
def test_abo_takes_the_captions_that_people_wrote(abo: Path, tmp_path: Path, table: str) -> None:
    (tmp_path / "Cap3D_human_ABO.csv").write_text(table)
    made = import_cohort("abo", abo, captions=tmp_path / "Cap3D_human_ABO.csv")
    assert [(case.case_id, case.reports) for case in made.cases] == [("B07CHAIR01", ("A chair of oak, with arms",))]
    assert made.left_out["products without a caption"] == 3


def test_ones_own_table_finds_bags_by_slide_or_by_slide_id(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        "case_id,slide_id,path,report\na,left,slides/one.svs,A.\na,right,slides/two.svs,\nb,third,slides/x.svs,B.\n"
    )
    bags = touch(tmp_path / "bags", "left.h5", "right.h5", "failures.csv")
    made = import_cohort("csv", tmp_path / "own.csv", bags=bags)
    (case,) = made.cases
    assert names(case.bag_paths) == ["left.h5", "right.h5"]
    assert made.left_out == {f"cases without a bag in {bags}": 1}

    write_manifest(
        tmp_path / "cohort.jsonl", [Case("c", (tmp_path / "one.svs", tmp_path / "two.svs"), (), ("x",), "val")]
    )
    bags = touch(tmp_path / "more", "one.h5", "c_9.h5")
    made = import_cohort("manifest", tmp_path / "cohort.jsonl", bags=bags)
    assert (names(made.cases[0].bag_paths), made.incomplete) == (["one.h5"], ("c",))


def test_patches_of_a_manifest_are_one_bag_or_one_a_picture(tmp_path: Path) -> None:
    pictures = (tmp_path / "a1.jpg", tmp_path / "a2.jpg")
    write_manifest(tmp_path / "c.jsonl", [Case("a", (), (), ("x",), None, image_paths=pictures)])
    one = import_cohort("manifest", tmp_path / "c.jsonl", bags=touch(tmp_path / "one", "a.h5"))
    assert (names(one.cases[0].bag_paths), one.incomplete) == (["a.h5"], ())
    each = import_cohort("manifest", tmp_path / "c.jsonl", bags=touch(tmp_path / "each", "a1.h5", "a2.h5"))
    assert names(each.cases[0].bag_paths) == ["a1.h5", "a2.h5"]


def test_two_files_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("case_id,path,report\na,one.svs,A.\n")
    bags = touch(tmp_path / "bags", "uni/one.h5", "virchow/one.h5")
    with pytest.raises(CohortError, match=r"uni/one\.h5 and .*virchow/one\.h5 are both called 'one'"):
        import_cohort("csv", tmp_path / "own.csv", bags=bags)


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"pathtext", "abo"}))
def test_a_file_of_another_form_is_named(tmp_path: Path, form: str) -> None:
    source = tmp_path / ("own.csv" if form in ("csv", "manifest", "patchgastric") else "file.json")
    source.write_text("a,b\n1,2\n" if source.suffix == ".csv" else '{"a": [1]}')
    with pytest.raises(CohortError) as raised:
        import_cohort(form, source)
    assert str(source) in str(raised.value)


@pytest.mark.parametrize(
    ("form", "value", "said"),
    [
        ("histgen", {"train": [{"id": "a"}]}, "'train', entry 1: 'report' is missing"),
        ("histgen", {"train": [{"id": "a", "report": "x"}] * 2}, "case 'a' is there twice"),
        ("reg2025", [{"id": "a.tiff", "report": ["x"]}], "entry 1: 'report' is list, not a text"),
        ("reg2025", ["a"], "entry 1: str, not an object"),
        ("histai", [{"conclusion": "x"}], "entry 1: 'case_mapping' is missing"),
        ("llava", [{"image": "a", "conversations": [{"from": "human", "value": "?"}]}], "entry 1: no answer"),
        ("coco", {"images": [{"filename": "a.jpg", "split": "dev", "sentences": []}]}, "split 'dev' is none of"),
        ("slidechat", [], "no case is left"),
    ],
)
def test_an_entry_that_is_wrong_is_named(dump: Dump, form: str, value: object, said: str) -> None:
    with pytest.raises(CohortError, match=said):
        import_cohort(form, dump("file.json", value))


def test_what_is_not_there_is_named(tmp_path: Path, dump: Dump) -> None:
    source = dump("reg.json", [{"id": "a.tiff", "report": "x"}])
    (tmp_path / "empty").mkdir()
    for options, said in (
        ({"source": tmp_path / "none.json"}, "none.json: no such file or folder"),
        ({"bags": tmp_path / "none"}, "none: no such folder"),
        ({"bags": tmp_path / "empty"}, "nothing of the kind in this folder"),
        ({"images": touch(tmp_path / "others", "b.tiff")}, "no case is left"),
        ({"captions": source}, "captions in a file of their own belong to abo"),
        ({"form": "mimic"}, "format 'mimic' is none of manifest"),
    ):
        chosen: dict[str, object] = {"form": "reg2025", "source": source} | options
        with pytest.raises(CohortError, match=said):
            import_cohort(**chosen)  # type: ignore[arg-type]
    (tmp_path / "x.json").write_text("{nonsense")
    with pytest.raises(CohortError, match=r"x\.json: neither JSON nor JSON Lines"):
        import_cohort("reg2025", tmp_path / "x.json")


def test_what_is_imported_is_a_manifest(dump: Dump, tmp_path: Path) -> None:
    made = import_cohort("histai", dump("case.json", HISTAI))
    write_manifest(tmp_path / "cohort.csv", made.cases)
    assert read_manifest(tmp_path / "cohort.csv") == list(made.cases)


KEYS = [
    "train",
    "val",
    "images",
    "annotations",
    "id",
    "report",
    "image_path",
    "image",
    "conversations",
    "from",
    "value",
]
KEYS += [
    "value",
    "case_mapping",
    "conclusion",
    "filename",
    "filepath",
    "file_name",
    "split",
    "sentences",
    "raw",
    "caption",
]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "train", "gpt", "a/b.jpg"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@pytest.mark.parametrize("form", ["histgen", "reg2025", "histai", "llava", "coco"])
@given(value=ANY)
def test_whatever_json_a_file_holds_it_is_a_cohort_or_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, form: str, value: object
) -> None:
    path = tmp_path_factory.mktemp("any") / "file.json"
    path.write_text(json.dumps(value))
    with contextlib.suppress(CohortError):
        assert import_cohort(form, path).cases
