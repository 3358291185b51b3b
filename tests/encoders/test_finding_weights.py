"""Weights are found where they lie, and an encoder that is not here says what to do."""

import json
from dataclasses import replace

import pytest

from wsi_mivpg.encoders import REGISTRY, is_available
from wsi_mivpg.encoders.weights import find_weights, sha256_of_weights
from wsi_mivpg.errors import EncoderError


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty hub cache without a network; call it to put a file of an encoder's repository there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(spec, name, content=b"x"):
        commit = spec.revision or "a" * 40
        folder = tmp_path / "hub" / f"models--{spec.hub_id.replace('/', '--')}"
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
        (snapshot / name).write_bytes(content)
        return snapshot / name

    return put


def test_a_gated_encoder_that_is_not_here_names_its_page_the_login_and_the_local_path(hub_cache):
    with pytest.raises(EncoderError) as refusal:
        find_weights(REGISTRY["uni2-h"], None)
    for part in ("https://huggingface.co/MahmoodLab/UNI2-h", "hf auth login", "--weights PATH"):
        assert part in str(refusal.value)
    available, how_to_get = is_available(REGISTRY["uni2-h"])
    assert not available
    assert "hf auth login" in how_to_get


def test_an_open_encoder_that_is_not_here_is_downloaded_by_name(hub_cache):
    assert is_available(REGISTRY["phikon-v2"]) == (
        False,
        "hf download owkin/phikon-v2; without a network: --weights PATH",
    )
    with pytest.raises(EncoderError, match="hf download owkin/phikon-v2"):
        find_weights(REGISTRY["phikon-v2"], None)


def test_an_encoder_outside_the_hub_says_where_it_is(hub_cache):
    with pytest.raises(EncoderError, match=r"TransPath.*--weights PATH"):
        find_weights(REGISTRY["ctranspath"], None)
    assert not is_available(REGISTRY["ctranspath"])[0]


@pytest.mark.parametrize(("encoder", "name"), [("uni", "pytorch_model.bin"), ("phikon", "model.safetensors")])
def test_a_file_in_the_cache_is_found_at_the_pinned_commit(hub_cache, encoder, name):
    spec = REGISTRY[encoder]
    path = hub_cache(spec, name)
    assert find_weights(spec, None) == (path,)
    assert is_available(spec) == (True, "")
    other = replace(spec, revision="b" * 40)
    assert not is_available(other)[0]
    with pytest.raises(EncoderError, match="not on this machine"):
        find_weights(other, None)


def test_only_the_shards_with_the_tower_are_needed(hub_cache):
    spec = REGISTRY["blip2-eva-vit-g"]
    shard = "model-00001-of-00002.safetensors"
    weight_map = {"vision_model.post_layernorm.weight": shard, "language_model.a": "model-00002-of-00002.safetensors"}
    hub_cache(spec, "model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode())
    assert not is_available(spec)[0]
    path = hub_cache(spec, shard)
    assert find_weights(spec, None) == (path,)
    assert is_available(spec) == (True, "")


def test_a_given_folder_is_searched_by_the_published_names(tmp_path):
    spec = REGISTRY["uni"]
    with pytest.raises(EncoderError, match=r"none of model\.safetensors, pytorch_model\.bin"):
        find_weights(spec, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert find_weights(spec, tmp_path) == (tmp_path / "pytorch_model.bin",)
    with pytest.raises(EncoderError, match=r"nowhere.*that exists"):
        find_weights(spec, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ("{", "not an index"),
        ('{"weight_map": {"vision_model.a": "gone.safetensors"}}', r"gone\.safetensors, absent"),
        ('{"weight_map": {"language_model.a": "b.safetensors"}}', "vision_model"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, index, complaint):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(index)
    with pytest.raises(EncoderError, match=complaint):
        find_weights(REGISTRY["blip2-eva-vit-g"], path)


def test_the_hash_of_several_files_is_of_all_of_them(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(b"a")
    second.write_bytes(b"b")
    one = sha256_of_weights([first])
    assert one == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    both = sha256_of_weights([first, second])
    second.write_bytes(b"c")
    assert len({one, both, sha256_of_weights([first, second])}) == 3
