"""Small data sets in the published form of the paper's three: slides, rendered tissue and photographs at hand."""

import csv
import gzip
import hashlib
import json
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from wsi_mivpg.cohorts.rendered_tissue import random_stain, render
from wsi_mivpg.slides import open_slide

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PATCH_PX, PATCH_MPP = 300, 0.5
_GLASS = 225
_INVENTED = [
    (
        "Well differentiated tubular adenocarcinoma",
        "Atypical cells form large ducts. Well differentiated",
    ),
    ("Papillary adenocarcinoma", " Atypical cells proliferate in papillary structures. Papillary adenocarcinoma"),
    ("Poorly differentiated adenocarcinoma, solid type", "Sheets of atypical cells. Poorly differentiated, solid type"),
]
_SUBJECTS = {
    "astronaut": ["a woman in an orange suit smiles", "an astronaut before a flag and a model of a shuttle"],
    "chelsea": ["a cat looks to the side", "the face of a striped cat with green eyes"],
    "coffee": ["a cup of coffee on a table", "a spoon lies beside a cup of black coffee"],
    "rocket": ["a rocket on its pad at night", "a white rocket stands between towers"],
    "motorcycle_left": ["a motorcycle in a garage", "an old motorcycle stands on a stone floor"],
    "retina": ["the back of an eye", "vessels of a retina on an orange ground"],
    "hubble_deep_field": ["galaxies in the dark", "many small galaxies of many colours"],
    "ihc": ["brown and blue cells", "a stained section of a colon's glands"],
}


def patch_gastric(folder: Path, n_slides: int = 15, n_patches: int = 3) -> Path:
    """Write `captions.csv` and `patches_captions/patches_captions/{id}_{hash}.jpg`, doubled as in the archive.

    Captions are the published ones where the shared data are here, and one more slide has a caption but no patch.
    """
    rows = [
        {"id": hashlib.md5(f"slide {number}".encode()).hexdigest(), "subtype": subtype, "text": text}
        for number, (subtype, text) in enumerate(_captions(n_slides + 1))
    ]
    patches = folder / "patches_captions" / "patches_captions"
    patches.mkdir(parents=True)
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ("id", "subtype", "text"))
        writer.writeheader()
        writer.writerows(rows)
    for number, patch in enumerate(_patches(n_slides * n_patches)):
        code = hashlib.sha256(f"patch {number}".encode()).hexdigest()[:16]
        Image.fromarray(patch).save(patches / f"{rows[number // n_patches]['id']}_{code}.jpg", quality=90)
    return folder


def coco(folder: Path) -> Path:
    """Write `images/val2014/*.jpg` and `dataset_coco.json` in Karpathy's form: train, restval, val and test."""
    splits = cycle(["train", "train", "restval", "val", "test", "train", "val", "test"])
    images = []
    (folder / "images" / "val2014").mkdir(parents=True)
    for number, ((name, texts), split) in enumerate(zip(_SUBJECTS.items(), splits, strict=False)):
        file = f"COCO_val2014_{number:012d}.jpg"
        _photograph(name).save(folder / "images" / "val2014" / file)
        sentences = [{"raw": text, "imgid": number, "sentid": 2 * number + i} for i, text in enumerate(texts)]
        images.append(
            {"filepath": "val2014", "filename": file, "cocoid": number, "split": split, "sentences": sentences}
        )
    (folder / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
    return folder


def abo(folder: Path, n_products: int = 15) -> Path:
    """Write listings and the table of images as ABO packs them, `images/small/xx/*.jpg`, and Cap3D's `captions.csv`.

    A product has two or three photographs, all parts of one; the last product has no caption.
    """
    listings, table, captions = [], [], []
    rng = np.random.default_rng(0)
    for number, name in zip(range(n_products + 1), cycle(_SUBJECTS), strict=False):
        item, ids = f"B{number:09d}", []
        whole = _photograph(name)
        for view in range(2 + number % 2):
            image_id = hashlib.md5(f"{item} {view}".encode()).hexdigest()[:11]
            left, top = rng.integers(0, 60, 2)
            path = folder / "images" / "small" / image_id[:2] / f"{image_id}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.crop((int(left), int(top), int(left) + 120, int(top) + 120)).save(path)
            ids.append(image_id)
            table.append({"image_id": image_id, "height": 120, "width": 120, "path": f"{image_id[:2]}/{path.name}"})
        listings.append(
            {
                "item_id": item,
                "item_name": [
                    {"language_tag": "de_DE", "value": "Ding"},
                    {"language_tag": "en_US", "value": "A thing"},
                ],
                "product_type": [{"value": "CHAIR"}],
                "main_image_id": ids[0],
                "other_image_id": ids[1:],
            }
        )
        if number < n_products:
            captions.append((item, _SUBJECTS[name][number % 2]))
    metadata = folder / "listings" / "metadata"
    metadata.mkdir(parents=True)
    with gzip.open(metadata / "listings_0.json.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(one) + "\n" for one in listings)
    (folder / "images" / "metadata").mkdir()
    with gzip.open(folder / "images" / "metadata" / "images.csv.gz", "wt", newline="") as stream:
        writer = csv.DictWriter(stream, ("image_id", "height", "width", "path"))
        writer.writeheader()
        writer.writerows(table)
    with (folder / "captions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(captions)
    return folder


def _captions(count: int) -> list[tuple[str, str]]:
    """Return (subtype, text): published ones of a few subtypes, many slides each, or invented ones."""
    published = SHARED / "text" / "patchgastric_captions.csv"
    if not published.is_file():
        return list(islice(cycle(_INVENTED), count))
    with published.open(newline="", encoding="utf-8") as stream:
        rows = [(row["subtype"], row["text"]) for row in csv.DictReader(stream)]
    common = sorted({subtype for subtype, _ in rows}, key=lambda one: -sum(row[0] == one for row in rows))[:3]
    return [row for row in rows if row[0] in common][:count]


def _patches(count: int) -> list[np.ndarray]:
    """Return uint8 (300, 300, 3) patches at 0.5 microns: of a stomach where the shared slide is here, else rendered."""
    rng = np.random.default_rng(3)
    slide_path = SHARED / "slides" / "metaplasia_HE.tiff"
    if not slide_path.is_file():
        tissue = render("glandular_tumour", 2 * PATCH_PX, random_stain(rng), rng)[::2, ::2]
        return [np.roll(tissue, rng.integers(0, PATCH_PX, 2), axis=(0, 1)) for _ in range(count)]
    patches: list[np.ndarray] = []
    with open_slide(slide_path) as slide:
        side = PATCH_PX * PATCH_MPP / slide.mpp
        while len(patches) < count:
            x, y = rng.uniform(0, np.array(slide.size_px) - side)
            patch = slide.read_region(x, y, PATCH_PX, PATCH_MPP)
            if patch.mean() < _GLASS:
                patches.append(patch)
    return patches


def _photograph(name: str) -> Image.Image:
    """Return one of scikit-image's pictures, small, as RGB; names are those of its files."""
    found = next(Path(data.__file__).parent.glob(f"{name}.*"))
    picture = Image.open(found).convert("RGB")
    picture.thumbnail((260, 260))
    return picture
