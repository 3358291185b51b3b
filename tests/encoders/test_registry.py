"""The table of published encoders: every entry is whole, and its network is built without weights and measured."""

import re
from functools import cache
from typing import get_args

import pytest

from wsi_mivpg.encoders import REGISTRY, find_spec
from wsi_mivpg.encoders.spec import Loader, Pooling, Precision
from wsi_mivpg.errors import EncoderError

BUILT = [name for name, spec in REGISTRY.items() if spec.loader != "remote-code"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
BIOPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
LUNIT = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# Published: features per tile, side in px, normalisation, and millions of parameters of the network that gives them.
PUBLISHED = {
    "uni": (1024, 224, IMAGENET, 303),
    "uni2-h": (1536, 224, IMAGENET, 681),
    "virchow": (2560, 224, IMAGENET, 631),
    "virchow2": (2560, 224, IMAGENET, 631),
    "prov-gigapath": (1536, 224, IMAGENET, 1135),
    "h-optimus-0": (1536, 224, BIOPTIMUS, 1135),
    "h-optimus-1": (1536, 224, BIOPTIMUS, 1135),
    "h0-mini": (768, 224, BIOPTIMUS, 86),
    "conch": (512, 448, CLIP, 87),
    "conch-v1.5": (768, 448, IMAGENET, 307),
    "phikon": (768, 224, IMAGENET, 86),
    "phikon-v2": (1024, 224, IMAGENET, 303),
    "hibou-b": (768, 224, ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)), 86),
    "hibou-l": (1024, 224, ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816)), 304),
    "ctranspath": (768, 224, IMAGENET, 28),
    "kaiko-vits8": (384, 224, HALF, 22),
    "kaiko-vits16": (384, 224, HALF, 22),
    "kaiko-vitb8": (768, 224, HALF, 86),
    "kaiko-vitb16": (768, 224, HALF, 86),
    "kaiko-vitl14": (1024, 224, HALF, 304),
    "midnight-12k": (3072, 224, HALF, 1135),
    "openmidnight": (1536, 224, IMAGENET, 1135),
    "lunit-resnet50-bt": (2048, 224, LUNIT, 23.5),
    "musk": (1024, 384, HALF, 304),
    "gpfm": (1024, 224, IMAGENET, 303),
    "keep": (768, 224, IMAGENET, 305),
    "plip": (512, 224, CLIP, 88),
    "genbio-pathfm": (4608, 224, ((0.697, 0.575, 0.728), (0.188, 0.240, 0.187)), 1134),
    "resnet50-clam": (1024, 224, IMAGENET, 8.5),
    "dinov2-giant": (1536, 224, IMAGENET, 1136),
    "dinov3-vith16plus": (1280, 224, IMAGENET, 840),
    "blip2-eva-vit-g": (1408, 224, CLIP, 986),
}


def test_the_registry_has_the_encoders_that_the_field_uses():
    assert len(REGISTRY) >= 50
    assert len(BUILT) >= 35
    assert set(REGISTRY) - set(BUILT) == {"rudolfv2", "rudolfv2-b", "rudolfv2-s"}
    assert set(PUBLISHED) <= set(REGISTRY)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_entry_is_whole(name):
    spec = REGISTRY[name]
    assert spec.name == name
    assert 0.25 <= spec.mpp <= 2
    assert spec.precision in get_args(Precision)
    assert spec.loader in get_args(Loader)
    assert spec.pooling in get_args(Pooling)
    assert spec.licence
    assert spec.source.startswith("https://")
    assert spec.weights_files
    assert not any(file.endswith(".pkl") for file in spec.weights_files)
    assert sum(place is not None for place in (spec.hub_id, spec.package)) + bool(spec.how_to_get) == 1
    assert spec.revision is None or re.fullmatch(r"[0-9a-f]{40}", spec.revision)
    for pattern in (*spec.ignored_keys, *(pattern for pattern, _ in spec.rename)):
        re.compile(pattern)


def test_what_no_encoder_may_ignore():
    """A pattern that ignores too much would leave weights out; none of them takes a tensor of the tower."""
    for spec in REGISTRY.values():
        for key in ("blocks.0.attn.qkv.weight", "encoder.layer.0.norm1.weight", "visual.trunk.cls_token", "cls_token"):
            assert not any(re.fullmatch(pattern, key) for pattern in spec.ignored_keys), spec.name


def _network_of(spec):
    """What two entries with the same network have in common."""
    return (spec.loader, repr(spec.architecture), spec.dim, spec.tile_px, spec.pooling)


@cache
def _measured(network):
    """(features' shape, millions of parameters) of a network on the meta device."""
    import torch

    from wsi_mivpg.encoders.architectures import build, pooled

    spec = next(spec for spec in REGISTRY.values() if _network_of(spec) == network)
    with torch.device("meta"), torch.inference_mode():
        built = pooled(spec, build(spec)).eval()
        features = built(torch.empty(1, 3, spec.tile_px, spec.tile_px))
    assert all(tensor.is_meta for tensor in built.parameters())
    return tuple(features.shape), sum(tensor.numel() for tensor in built.parameters()) / 1e6


@pytest.mark.parametrize("name", BUILT)
def test_the_network_is_built_without_weights_and_gives_the_declared_features(name):
    spec = REGISTRY[name]
    shape, n_millions = _measured(_network_of(spec))
    assert shape == (1, spec.dim)
    if name in PUBLISHED:
        dim, tile_px, normalisation, published_millions = PUBLISHED[name]
        assert (spec.dim, spec.tile_px) == (dim, tile_px)
        assert (spec.mean, spec.std) == normalisation
        assert n_millions == pytest.approx(published_millions, rel=0.02)


def test_an_unknown_encoder_names_the_known_ones_and_the_way_to_ones_own():
    with pytest.raises(EncoderError, match=r"efficientnet-lite0.*uni2-h.*module:function"):
        find_spec("uni3")
