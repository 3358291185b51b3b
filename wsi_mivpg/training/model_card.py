"""The page that goes with a trained model: what it was trained on, how, how well, and what it must not be used for."""

from collections import Counter
from importlib import metadata

from wsi_mivpg.training.cases import Cohort
from wsi_mivpg.training.progress import JsonLinesLog, duration
from wsi_mivpg.training.recipe import Recipe, as_yaml

_LIBRARIES = ("wsi-mivpg", "torch", "transformers", "peft", "accelerate", "numpy")
_LOSSES_SHOWN = 12


def model_card(recipe: Recipe, cohort: Cohort, log: JsonLinesLog, steps: int, best_step: int | None) -> str:
    """Return the card as Markdown with Hugging Face's front matter; every figure comes from this training.

    Args:
        recipe: as it was resolved.
        cohort: the cases it was trained on.
        log: of the whole training.
        steps: steps done.
        best_step: the step whose weights these are; None for the last one.
    """
    parts = [
        _front_matter(recipe),
        f"# {recipe.name}",
        "",
        "Writes a text for the feature bags of a case. For research; not a medical device, and not to be used for "
        "diagnosis."
        + (" **It was trained on invented data: what it writes means nothing.**" if recipe.model.demonstration else ""),
        "",
        *_data(cohort),
        *_training(recipe, log, steps, best_step),
        *_limits(recipe, cohort),
        "## Made with",
        "",
        ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES),
        "",
        "## Recipe",
        "",
        f"```yaml\n{as_yaml(recipe)}```",
        "",
    ]
    return "\n".join(parts)


def _front_matter(recipe: Recipe) -> str:
    base = recipe.model.from_blip2 or recipe.model.language_model
    return f"---\nlibrary_name: wsi-mivpg\nbase_model: {base}\ntags: [pathology, whole-slide-image, mivpg]\n---\n"


def _data(cohort: Cohort) -> list[str]:
    rows = [_row("train", cohort), _row("val", cohort)]
    rows += [f"| {split} (not used) | {count} | | | |" for split, count in sorted(cohort.others.items())]
    leaks = (
        ["**Splits leak into each other, and the recipe let them:**", "", *(f"- {one.message}" for one in cohort.leaks)]
        if cohort.leaks
        else ["No patient, slide or bag is in more than one split (checked before training)."]
    )
    bag = cohort.bag
    made = f"Bags: encoder {bag.encoder}, {bag.feature_dim} features a tile, {bag.tile_px} px at {bag.target_mpp} µm."
    table = ["| split | cases | patients | slides | different reports |", "|---|---|---|---|---|", *rows]
    return ["## Data", "", *table, "", made, "", *leaks, ""]


def _row(split: str, cohort: Cohort) -> str:
    cases = {"train": cohort.train, "val": cohort.val}[split]
    slides = sum(len(case.bag_paths) for case in cases)
    texts = Counter(case.reports[0] for case in cases)
    return f"| {split} | {len(cases)} | {len({case.patient for case in cases})} | {slides} | {len(texts)} |"


def _training(recipe: Recipe, log: JsonLinesLog, steps: int, best_step: int | None) -> list[str]:
    losses = log.entries("loss")
    shown = losses[:: max(1, len(losses) // _LOSSES_SHOWN)]
    evaluations = log.entries("eval_loss")
    text = [
        "## Training",
        "",
        f"{steps} steps; {duration(log.last('seconds'))} in the last run. "
        + (
            f"These are the weights of step {best_step}, the best by {recipe.selection.metric} on split val."
            if best_step is not None
            else "These are the weights of the last step: there is no split val to choose by."
        ),
        "",
        "| step | training loss per token |",
        "|---|---|",
        *(f"| {entry['step']} | {entry['loss']:.4f} |" for entry in shown),
        "",
    ]
    if not evaluations:
        return text
    names = [name for name in evaluations[0] if name in _NAMES]
    return [
        *text,
        "On split val, all instances of each case; reports written by the model:",
        "",
        "| step | " + " | ".join(_NAMES[name] for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(f"| {entry['step']} | " + " | ".join(f"{entry[name]:.4f}" for name in names) + " |" for entry in evaluations),
        "",
    ]


_NAMES = {
    "eval_loss": "loss per token",
    "eval_cider": "CIDEr-D",
    "eval_rouge_l": "ROUGE-L",
    "eval_bleu_4": "BLEU-4",
    "eval_fields": "facts stated alike",
    "eval_distinct": "share of different texts",
}


def _limits(recipe: Recipe, cohort: Cohort) -> list[str]:
    bag = cohort.bag
    return [
        "## Limits",
        "",
        f"- It reads bags of {bag.encoder} at {bag.target_mpp} µm per pixel and refuses others.",
        f"- It knows what {len(cohort.train)} training cases show; other organs, stains, scanners and languages are "
        "out of its reach, and it will write something nevertheless.",
        "- Its numbers come from the validation split that also chose the weights; only a test split tells how well it "
        "does elsewhere (`wsi-mivpg evaluate`).",
        f"- It writes at most {recipe.model.max_new_tokens} tokens; a text that reached them is flagged.",
        "",
    ]
