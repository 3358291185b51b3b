"""Checkpoints are found and read in every form in which they are published, and nothing but the Q-Former is read."""

import json
import pickle
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.mivpg.blip2_checkpoints import (
    FAMILIES,
    KEY,
    OURS,
    SIZES,
    WIDTH,
    as_lavis,
    assert_same_tensors,
    publish,
    tensors_of,
    their_prompt,
    write_lavis,
)
from wsi_mivpg.errors import ModelError
from wsi_mivpg.mivpg import MivpgConfig, checkpoint
from wsi_mivpg.mivpg.pretrained import load_blip2


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return {family: publish(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture
def state(published):
    """The tensors of the BLIP-2 that concern us, by Hugging Face's names."""
    return tensors_of(published["blip-2"][0])


def test_nothing_else_is_read(published, tmp_path, monkeypatch):
    """Of every shard only our tensors; shards without any may be absent."""
    folder = shutil.copytree(published["instructblip"][1], tmp_path / "part")
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {shard for key, shard in weight_map.items() if key.startswith(OURS) and ".embeddings." not in key}
    foreign = set(weight_map.values()) - needed
    assert len(foreign) > 1
    for shard in foreign:
        (folder / shard).unlink()
    read = []

    @contextmanager
    def watched(path, **options):
        with safe_open(path, **options) as file:
            yield SimpleNamespace(keys=file.keys, get_tensor=lambda key: read.append(key) or file.get_tensor(key))

    monkeypatch.setattr(checkpoint, "safe_open", watched)
    parts = load_blip2(folder, config=MivpgConfig(**SIZES, csa=False))
    own = {*parts.model.state_dict(), "language_projection.weight", "language_projection.bias"}
    assert sorted(key.replace("qformer.embeddings.layernorm", "qformer.layernorm") for key in read) == sorted(own)


def _as_one_file(state, folder):
    save_file(state, folder / "model.safetensors")
    return folder


def _as_one_named_file(state, folder):
    return _as_one_file(state, folder) / "model.safetensors"


def _as_torch_file(state, folder):
    torch.save(state, folder / "pytorch_model.bin")
    return str(folder)


def _as_oldest_torch_file(state, folder):
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder / "old.pth"


def _as_torch_shards(state, folder):
    names = sorted(state)
    shards = {"a.bin": names[:50], "b.bin": names[50:]}
    for shard, held in shards.items():
        torch.save({name: state[name] for name in held}, folder / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held} | {"language_model.a": "c.bin"}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def _as_lavis_in_half_precision(state, folder):
    for name in state:
        state[name] = state[name].half()
    return write_lavis(state, folder)


@pytest.mark.parametrize(
    "write",
    [
        _as_one_file,
        _as_one_named_file,
        _as_torch_file,
        _as_oldest_torch_file,
        _as_torch_shards,
        write_lavis,
        _as_lavis_in_half_precision,
    ],
)
def test_every_form_of_a_checkpoint_gives_the_same_tensors(state, write, tmp_path):
    assert_same_tensors(load_blip2(write(state, tmp_path)), state)


def test_the_index_of_shards_may_be_given_itself(published, state):
    assert_same_tensors(load_blip2(published["blip-2"][1] / "model.safetensors.index.json"), state)


@pytest.mark.parametrize("write", [_as_one_named_file, write_lavis])
def test_what_was_read_no_longer_hangs_on_the_file(state, write, tmp_path):
    path = write(state, tmp_path)
    parts = load_blip2(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_same_tensors(parts, state)


@pytest.mark.parametrize("projection", ["opt_proj", "t5_proj", "llm_proj"])
@torch.no_grad()
def test_instructblip_under_lavis_names_loses_only_what_reads_the_instruction(published, projection, tmp_path):
    theirs = published["instructblip"][0]
    stored = as_lavis(tensors_of(theirs), projection)
    assert "Qformer.bert.embeddings.word_embeddings.weight" in stored
    assert "Qformer.bert.encoder.layer.3.intermediate.dense.bias" in stored
    torch.save({"model": stored}, tmp_path / "instruct.pth")
    config, instances = MivpgConfig(**SIZES), torch.randn(30, WIDTH)
    found = load_blip2(tmp_path / "instruct.pth", config=config).model(instances, [30]).visual_prompt
    torch.testing.assert_close(found, their_prompt(theirs, instances), atol=1e-5, rtol=0)


def test_the_first_stage_of_lavis_gives_no_language_projection(state, tmp_path):
    first_stage = {
        **as_lavis({name: tensor for name, tensor in state.items() if "projection" not in name}),
        "Qformer.bert.embeddings.position_ids": torch.arange(16)[None],
        "Qformer.bert.embeddings.word_embeddings.weight": torch.randn(40, 128),
        "Qformer.bert.encoder.layer.0.output.LayerNorm.weight": torch.randn(128),
        "Qformer.cls.predictions.bias": torch.randn(40),
        "visual_encoder.blocks.0.attn.q_bias": torch.randn(WIDTH),
        "text_proj.weight": torch.randn(256, 128),
        "temp": torch.tensor(0.07),
    }
    torch.save({"model": first_stage}, tmp_path / "blip2_pretrained.pth")
    parts = load_blip2(tmp_path / "blip2_pretrained.pth")
    assert parts.language_projection is None
    assert torch.equal(parts.model.query_tokens, state["query_tokens"])


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub without a network; call it to put a file of the repository "lab/blip2" there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(file):
        folder, commit = tmp_path / "hub" / "models--lab--blip2", "a" * 40
        (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
        shutil.copy(file, folder / "snapshots" / commit)

    return put


def test_a_hub_id_is_read_from_the_cache_and_needs_only_the_qformers_shards(published, state, hub_cache):
    folder = published["blip-2"][1]
    index = folder / "model.safetensors.index.json"
    hub_cache(folder / "config.json")
    hub_cache(index)
    with pytest.raises(ModelError, match=r"model-.*safetensors.*absent"):
        load_blip2("lab/blip2")
    for shard in {name for key, name in json.loads(index.read_text())["weight_map"].items() if key.startswith(OURS)}:
        hub_cache(folder / shard)
    assert_same_tensors(load_blip2("lab/blip2"), state)
    assert_same_tensors(load_blip2("lab/blip2", revision="a" * 40), state)
    with pytest.raises(ModelError, match="hf download"):
        load_blip2("lab/blip2", revision="b" * 40)


@pytest.mark.parametrize("name", ["lab/blip2", "no such folder/a/b.pth"])
def test_what_is_neither_here_nor_on_the_hub_says_how_to_get_it(hub_cache, name):
    with pytest.raises(ModelError, match=f"'{name}' is no file or folder here.*hf download"):
        load_blip2(name)


def test_a_folder_without_weights_names_what_it_should_hold(tmp_path):
    with pytest.raises(ModelError, match=r"none of model\.safetensors, model\.safetensors\.index\.json"):
        load_blip2(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 20_000])
def test_a_truncated_shard_is_named(published, kept, tmp_path):
    folder = shutil.copytree(published["blip-2"][1], tmp_path / "cut")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shard = folder / index["weight_map"][KEY]
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(ModelError, match=f"{shard}: not a readable safetensors file.*download it again"):
        load_blip2(folder)


@pytest.mark.parametrize("kept", [0, 5, 20_000])
def test_a_truncated_torch_file_is_named(state, kept, tmp_path):
    path = write_lavis(state, tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=str(path)):
        load_blip2(path)


@pytest.mark.parametrize(
    "index", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"query_tokens": "gone.safetensors"}}']
)
def test_a_damaged_index_is_named(index, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=r"index\.json: (not an index|it names gone\.safetensors, absent)"):
        load_blip2(tmp_path)


class _Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("save", [lambda bomb, path: path.write_bytes(pickle.dumps(bomb, protocol=2)), torch.save])
def test_a_pickle_is_refused_and_never_run(save, tmp_path):
    target, path = tmp_path / "was_here", tmp_path / "blip2.pth"
    save({"model": {"query_tokens": _Bomb(target)}}, path)
    with pytest.raises(ModelError, match="could run code"):
        load_blip2(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("stored", "complaint"),
    [([1, 2], "holds a list"), ({"epoch": 3}, "no Q-Former"), ({"qformer.layernorm.weight": 3}, "no Q-Former")],
)
def test_another_file_is_refused(stored, complaint, tmp_path):
    torch.save(stored, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=complaint):
        load_blip2(tmp_path / "other.pth")
