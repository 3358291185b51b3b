"""Weights that do not fit are refused by name; code in them is never run; remote code only when it is asked for."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.encoders import published
from tests.encoders.reference import random_vit
from tests.encoders.test_published_networks import TINY_HF, TINY_VIT, tiles_for, tiny, written
from wsi_mivpg.encoders import REGISTRY
from wsi_mivpg.encoders.load import load_encoder
from wsi_mivpg.encoders.published import load_spec
from wsi_mivpg.errors import EncoderError

UNI = tiny("uni", 32, **TINY_VIT)
PHIKON = tiny("phikon-v2", 32, config=TINY_HF)


def uni_state():
    return random_vit(hidden=128)


def phikon_state():
    return published.hf_dinov2(random_vit(hidden=128))


CASES = pytest.mark.parametrize(
    ("spec", "make", "key"),
    [
        (UNI, uni_state, "blocks.1.ls1.gamma"),
        (PHIKON, phikon_state, "encoder.layer.1.layer_scale1.lambda1"),
    ],
    ids=["timm", "transformers"],
)


@CASES
def test_a_missing_tensor_is_named(spec, make, key, tmp_path):
    state = make()
    del state[key]
    path = written(state, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=rf"{path}.*1 missing \({key}\)"):
        load_spec(spec, weights=path)


@CASES
def test_an_unexpected_tensor_is_named(spec, make, key, tmp_path):
    path = written(make() | {"classifier.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=rf"{path}.*1 unexpected \(classifier\.weight\)"):
        load_spec(spec, weights=path)


@CASES
def test_a_tensor_of_another_shape_is_named(spec, make, key, tmp_path):
    state = make()
    state[key] = torch.zeros(7)
    path = written(state, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=rf"{path}: not the weights of {spec.name}"):
        load_spec(spec, weights=path)


def test_the_weights_of_another_encoder_are_refused(tmp_path):
    path = written(phikon_state(), tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=r"missing \(.* …\) and .* unexpected"):
        load_spec(UNI, weights=path)


def test_a_position_grid_of_another_tile_size_is_not_resampled_in_silence(tmp_path):
    state = published.dinov2(random_vit(hidden=85, mlp="swiglu", n_registers=4, grid=3))
    path = written(state, tmp_path / "teacher_checkpoint_load.pt")
    with pytest.raises(EncoderError, match=r"pos_embed has 10 positions, the network 4 patches"):
        load_spec(tiny("openmidnight", 32, **TINY_VIT), weights=path)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("kept", [0, 10, 3000])
def test_a_truncated_file_is_refused(suffix, kept, tmp_path):
    path = written(uni_state(), tmp_path / f"model{suffix}")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(EncoderError, match=str(path)):
        load_spec(UNI, weights=path)


class _Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("save", [lambda bomb, path: path.write_bytes(pickle.dumps(bomb, protocol=2)), torch.save])
def test_a_pickle_is_refused_and_never_run(save, tmp_path):
    target, path = tmp_path / "was_here", tmp_path / "pytorch_model.bin"
    save({"cls_token": _Bomb(target)}, path)
    with pytest.raises(EncoderError, match="could run code"):
        load_spec(UNI, weights=path)
    assert not target.exists()


@pytest.mark.parametrize("stored", [[1, 2], {"epoch": 3}])
def test_a_torch_file_without_tensors_is_refused(stored, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(stored, path)
    with pytest.raises(EncoderError, match="not tensors by name"):
        load_spec(UNI, weights=path)


def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    path = written(uni_state(), tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match="sha256"):
        load_spec(replace(UNI, weights_sha256="0" * 64), weights=path)


@pytest.fixture
def remote_folder(tmp_path, monkeypatch):
    """A hub repository with Python code of its own, as RudolfV-2 is published."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "modeling_tiny.py").write_text(
        "import torch\n"
        "from transformers import PretrainedConfig, PreTrainedModel\n"
        "from transformers.modeling_outputs import BaseModelOutput\n"
        "class TinyConfig(PretrainedConfig):\n"
        "    model_type = 'tiny_remote'\n"
        "class TinyModel(PreTrainedModel):\n"
        "    config_class = TinyConfig\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        self.embed = torch.nn.Conv2d(3, 5, 8, stride=8)\n"
        "        self.post_init()\n"
        "    def forward(self, pixel_values):\n"
        "        return BaseModelOutput(last_hidden_state=self.embed(pixel_values).flatten(2).transpose(1, 2))\n"
    )
    auto_map = {"AutoConfig": "modeling_tiny.TinyConfig", "AutoModel": "modeling_tiny.TinyModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny_remote", "auto_map": auto_map}))
    state = {"embed.weight": torch.randn(5, 3, 8, 8), "embed.bias": torch.randn(5)}
    written(state, folder / "model.safetensors")
    return folder, state


def test_remote_code_runs_only_when_asked_by_name(remote_folder):
    folder, state = remote_folder
    spec = replace(REGISTRY["rudolfv2-s"], dim=5, tile_px=16)
    with pytest.raises(EncoderError, match=r"huggingface\.co/Aignostics/RudolfV-2-S.*--trust-remote-code"):
        load_spec(spec, weights=folder)
    encoder = load_spec(spec, weights=folder, trust_remote_code=True, precision="fp32")
    tiles = tiles_for(spec)
    pixels = (tiles[:, :8, :8] / 255 - spec.mean) / spec.std
    wanted = np.einsum("nhwc,dchw->nd", pixels, state["embed.weight"].numpy()) + state["embed.bias"].numpy()
    assert np.abs(encoder.encode(tiles) - wanted).max() < 3e-3 * np.abs(wanted).max()


def test_remote_code_with_weights_that_do_not_fit_is_refused(remote_folder):
    folder, state = remote_folder
    spec = replace(REGISTRY["rudolfv2-s"], dim=5, tile_px=16)
    written(state | {"more": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=r"unexpected \(more\)"):
        load_spec(spec, weights=folder, trust_remote_code=True, precision="fp32")
    (folder / "config.json").unlink()
    with pytest.raises(EncoderError, match=r"config\.json"):
        load_spec(spec, weights=folder, trust_remote_code=True, precision="fp32")


def test_an_unknown_name_is_refused_before_anything_is_loaded():
    with pytest.raises(EncoderError, match="unknown encoder 'uni9'"):
        load_encoder("uni9")
