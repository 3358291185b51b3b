"""Cases small enough to train on in seconds: four reports, each with its own direction in the bags' features."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from tests.provenance import PROVENANCE
from tests.tiny_captioner import ADAPTER, CHATML, REPORTS, write_tiny_language_model
from wsi_mivpg.bags import write_bag
from wsi_mivpg.cohorts.case import Case
from wsi_mivpg.training import Recipe


def write_case(folder: Path, name: str, kind: int, split: str | None = "train", tiles: tuple[int, ...] = (6,)) -> Case:
    """Write one bag per entry of `tiles` and return the case; two cases are never alike, whatever their kind."""
    rng = np.random.default_rng([kind, *name.encode()])
    bags = []
    for slide, count in enumerate(tiles):
        path = folder / f"{name}-{slide}.h5"
        features = (0.3 * rng.standard_normal((count, 12))).astype(np.float16)
        features[:, kind] += 2
        coords = np.column_stack([np.arange(count), np.zeros(count, np.int64)]) * 300
        provenance = dataclasses.replace(PROVENANCE, slide_id=path.stem)
        write_bag(path, features, coords, np.ones(count, np.float32), provenance)
        bags.append(path)
    return Case(name, (), tuple(bags), (REPORTS[kind],), split)


def write_cases(folder: Path, train: int = 4, val: int = 0) -> list[Case]:
    """Write `train` and `val` cases with bags of 5 to 8 tiles; kinds take turns."""
    folder.mkdir(exist_ok=True)
    return [
        write_case(folder, f"{split}{index}", index % len(REPORTS), split, (5 + index % 4,))
        for split, count in (("train", train), ("val", val))
        for index in range(count)
    ]


def tiny_recipe(base: Path, *, model: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    """Return a recipe of eight steps around the tiny Llama, which is written to `base` if no model is there.

    `sections` are merged into the recipe's: ``optim={"steps": 3}``.
    """
    if not (base / "config.json").is_file():
        write_tiny_language_model(base)
    adapter = {name: value for name, value in ADAPTER.items() if name != "input_dim"}
    settings: dict[str, Any] = {
        "name": "tiny",
        "seed": 3,
        "precision": "fp32",
        "model": {
            "mivpg": {**adapter, "hidden_dropout_prob": 0.1},
            "language_model": str(base),
            "trains": "lora",
            "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
            "prompt": "read the slide",
            "prompt_template": CHATML,
            "max_new_tokens": 16,
            **(model or {}),
        },
        "optim": {"steps": 8, "batch_size": 2, "warmup_steps": 2, "save_every": 4, "lr_adapter": 5e-3},
    }
    for name, section in sections.items():
        settings[name] = {**settings.get(name, {}), **section} if isinstance(section, dict) else section
    return Recipe.model_validate(settings)
