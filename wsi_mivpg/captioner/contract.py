"""Whether a bag is made as the bags that a model was trained on, and what of it is not.

It compares what both state; which of the differences a user may insist on is decided here too.
"""

from typing import Any

from wsi_mivpg.bags import CONTRACT, FeatureBag, agree, require_contract
from wsi_mivpg.captioner.configuration import CaptionerConfig
from wsi_mivpg.errors import BagError, ModelError

_DRAWN = "geojson"
_ABOUT = {"segmenter": "tissue found by", "min_tissue": "least tissue share of a tile"}


def refuse_other_bags(config: CaptionerConfig, bag: FeatureBag) -> None:
    """Refuse a bag that was made with other settings than the model was trained on.

    Raises:
        ModelError: naming the file, both values and the way out.
        BagError: the bag does not state a value that the model asks for.
    """
    if found := _differing(config, bag):
        extracted = f"{config.encoder!r} at {config.target_mpp} µm per pixel"
        if config.tissue is not None:
            extracted += f", tissue by {config.tissue['segmenter']}, at least {config.tissue['min_tissue']:g} of a tile"
        if config.feature_dim in (None, bag.feature_dim):
            way_on = "`wsi-mivpg report --force` goes on and says so in the report"
        else:
            way_on = f"with {bag.feature_dim} features a tile in place of {config.feature_dim}, --force cannot go on"
        raise ModelError(
            f"{bag.path}: {found[0]}; extract the slide again with the model's encoder, {extracted}; {way_on}"
        )
    require_contract(bag, _asked(config))


def forced_differences(config: CaptionerConfig, bag: FeatureBag) -> tuple[str, ...]:
    """Return how a bag differs from those that the model was trained on, a sentence each with both values.

    Raises:
        ModelError: its features are of another width, which nobody can insist on.
    """
    if config.feature_dim is not None and bag.feature_dim != config.feature_dim:
        refuse_other_bags(config, bag)
    found = _differing(config, bag)
    try:
        require_contract(bag, _asked(config))
    except BagError:
        silent = [name for name in _asked(config) if getattr(bag, name) is None]
        found.append(f"bag of slide {bag.slide_id!r} does not state its {', '.join(silent)}")
    return tuple(found)


def tissue_settings(bag: FeatureBag) -> dict[str, Any] | None:
    """Return how the tissue of a bag was found, ``{"segmenter", "min_tissue"}``; None where it does not say.

    Tissue that somebody drew is one segmenter, whatever was drawn.
    """
    made = bag.provenance
    if made is None or bag.are_patch_tokens:
        return None
    drawn = made.tissue_method.startswith(f"{_DRAWN}:")
    return {"segmenter": _DRAWN if drawn else made.tissue_method, "min_tissue": made.min_tissue}


def _asked(config: CaptionerConfig) -> tuple[str, ...]:
    return tuple(name for name in CONTRACT if getattr(config, name) is not None)


def _differing(config: CaptionerConfig, bag: FeatureBag) -> list[str]:
    of = f"bag of slide {bag.slide_id!r} has"
    found = []
    for name in _asked(config):
        expected, stated = getattr(config, name), getattr(bag, name)
        if stated is not None and not agree(expected, stated):
            found.append(f"{of} {name} {stated!r}, but this model was trained on {expected!r}")
    tissue = tissue_settings(bag)
    if config.tissue is not None and tissue is not None:
        found += [
            f"{of} {about} {tissue[name]!r}, but this model was trained on {config.tissue[name]!r}"
            for name, about in _ABOUT.items()
            if tissue[name] != config.tissue[name]
        ]
    return found
