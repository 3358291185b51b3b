"""Every kind of published checkpoint, tiny, under its published names, gives what its paper's arithmetic gives."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from tests.encoders import published
from tests.encoders.reference import attention_pool, pixels_of, random_vit, vit_tokens
from wsi_mivpg.atomic import sha256_of
from wsi_mivpg.encoders import find_spec
from wsi_mivpg.encoders.published import load_spec

TINY_VIT = {"img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2}
TINY_HF = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


def tiny(name, dim, *, tile_px=28, config=None, **architecture):
    """The registered encoder with a tiny network: everything else, names above all, stays as registered."""
    spec = find_spec(name)
    changed = {**spec.architecture, **architecture}
    if config is not None:
        changed["config"] = {**changed["config"], **config}
    return replace(spec, dim=dim, tile_px=tile_px, architecture=changed)


def written(state, path):
    """Write tensors as safetensors or, by the suffix, with torch.save."""
    state = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def tiles_for(spec):
    """Noise, darker and darker, so that networks that average over the tile tell them apart too."""
    noise = np.random.default_rng(5).integers(0, 256, size=(3, spec.tile_px, spec.tile_px, 3))
    return (noise // np.array([1, 2, 5])[:, None, None, None]).astype(np.uint8)


def assert_gives(spec, path, expected):
    """The encoder loaded from `path` gives the features that `expected` computes from normalised pixels."""
    tiles = tiles_for(spec)
    encoder = load_spec(spec, weights=path, precision="fp32")
    features = encoder.encode(tiles).astype(np.float32)
    wanted = expected(pixels_of(tiles, spec)).numpy()
    assert features.shape == wanted.shape == (3, spec.dim)
    assert np.abs(wanted[0] - wanted[1]).max() > 0.05 * np.abs(wanted).max()  # the oracle tells tiles apart
    assert np.abs(features - wanted).max() < 3e-3 * np.abs(wanted).max()
    assert len(encoder.spec.weights_sha256) == 64
    return encoder


@pytest.mark.parametrize("name", ["uni", "mstar", "digepath", "gpfm"])
def test_a_plain_vit_gives_its_class_token(name, tmp_path):
    state = random_vit(hidden=128)
    extra = {"mask_token": torch.zeros(1, 32)} if name == "gpfm" else {}
    path = written(state | extra, tmp_path / "pytorch_model.bin")
    encoder = assert_gives(tiny(name, 32, **TINY_VIT), path, lambda x: vit_tokens(state, x)[:, 0])
    assert encoder.spec.weights_sha256 == sha256_of(path)


@pytest.mark.parametrize(
    ("name", "hidden"), [("kaiko-vits16", 128), ("lunit-dino-s8", 128), ("prov-gigapath-flash", 85)]
)
def test_small_vits_of_timm(name, hidden, tmp_path):
    mlp = "swiglu" if name.endswith("flash") else "gelu"
    state = random_vit(hidden=hidden, mlp=mlp, layer_scale=mlp == "swiglu")
    path = written(state, tmp_path / "model.safetensors")
    assert_gives(tiny(name, 32, **TINY_VIT), path, lambda x: vit_tokens(state, x, mlp=mlp)[:, 0])


@pytest.mark.parametrize(("name", "n_registers"), [("virchow", 0), ("virchow2", 4), ("virchow2-cls", 4)])
def test_virchow_gives_the_class_token_and_the_mean_of_the_patches(name, n_registers, tmp_path):
    state = random_vit(hidden=85, mlp="swiglu", n_registers=n_registers, positions="all")
    path = written(state, tmp_path / "model.safetensors")

    def expected(pixels):
        tokens = vit_tokens(state, pixels, mlp="swiglu")
        mean = tokens[:, 1 + n_registers :].mean(dim=1)
        return tokens[:, 0] if name == "virchow2-cls" else torch.cat([tokens[:, 0], mean], dim=-1)

    assert_gives(tiny(name, 32 if name == "virchow2-cls" else 64, **TINY_VIT, mlp_ratio=5.33334), path, expected)


def test_openmidnight_keeps_dinov2_names_and_registers_without_positions(tmp_path):
    state = random_vit(hidden=85, mlp="swiglu", n_registers=4)
    path = written(published.dinov2(state), tmp_path / "teacher_checkpoint_load.pt")
    assert_gives(tiny("openmidnight", 32, **TINY_VIT), path, lambda x: vit_tokens(state, x, mlp="swiglu")[:, 0])


def test_musk_takes_the_image_branch_of_beit3(tmp_path):
    state = random_vit(hidden=128, layer_scale=False, sub_norm=True)
    path = written(published.musk(state), tmp_path / "model.safetensors")
    spec = tiny("musk", 32, **TINY_VIT)
    assert_gives(spec, path, lambda x: vit_tokens(state, x, eps=1e-5)[:, 0])


def test_genbio_pathfm_sees_one_channel_at_a_time(tmp_path):
    state = random_vit(
        patch=16, hidden=128, mlp="swiglu", n_registers=4, positions=None, channels=1, qkv_bias=False, depth=2
    )
    path = written(published.genbio(state), tmp_path / "model.pth")
    small = {**TINY_VIT, "patch_size": 16, "img_size": 32, "mlp_ratio": 4.0, "swiglu_align_to": 8}

    def expected(pixels):
        channels = [vit_tokens(state, pixels[:, [c]], mlp="swiglu", rope_base=100)[:, 0] for c in range(3)]
        return torch.cat(channels, dim=-1)

    assert_gives(tiny("genbio-pathfm", 96, tile_px=32, **small), path, expected)


@pytest.mark.parametrize(
    ("name", "mlp", "n_registers"),
    [("phikon-v2", "gelu", 0), ("hibou-b", "swiglu", 4), ("midnight-12k", "swiglu", 0), ("dinov2-giant", "swiglu", 0)],
)
def test_dinov2_of_transformers(name, mlp, n_registers, tmp_path):
    state = random_vit(hidden=88 if mlp == "swiglu" else 128, mlp=mlp, n_registers=n_registers)
    path = written(published.hf_dinov2(state), tmp_path / "model.safetensors")

    def expected(pixels):
        tokens = vit_tokens(state, pixels, mlp=mlp)
        mean = tokens[:, 1 + n_registers :].mean(dim=1)
        return torch.cat([tokens[:, 0], mean], dim=-1) if name == "midnight-12k" else tokens[:, 0]

    assert_gives(tiny(name, 64 if name == "midnight-12k" else 32, config=TINY_HF), path, expected)


def test_the_grid_of_midnight_is_that_of_its_positions(tmp_path):
    """Its positions may be stored for larger tiles; transformers then interpolates them, as published."""
    path = written(published.hf_dinov2(random_vit(hidden=88, mlp="swiglu", grid=4)), tmp_path / "model.safetensors")
    encoder = load_spec(tiny("midnight-12k", 64, config=TINY_HF), weights=path, precision="fp32")
    assert np.isfinite(encoder.encode(tiles_for(encoder.spec))).all()


def test_phikon_is_a_vit_of_transformers(tmp_path):
    state = random_vit(hidden=64, layer_scale=False)
    path = written(published.hf_vit(state), tmp_path / "pytorch_model.bin")
    spec = tiny("phikon", 32, config={**TINY_HF, "intermediate_size": 64})
    assert_gives(spec, path, lambda x: vit_tokens(state, x, eps=1e-12)[:, 0])


def test_dinov3_turns_queries_and_keys_with_the_place_of_the_patch(tmp_path):
    state = random_vit(patch=16, hidden=64, n_registers=4, positions=None)
    for block in ("blocks.0", "blocks.1"):
        state[f"{block}.attn.qkv.bias"][32:64] = 0  # keys have no bias
    path = written(published.hf_dinov3(state), tmp_path / "model.safetensors")
    config = {**TINY_HF, "patch_size": 16, "image_size": 32, "intermediate_size": 64}
    spec = tiny("dinov3-vits16", 32, tile_px=32, config=config)
    assert_gives(spec, path, lambda x: vit_tokens(state, x, eps=1e-5, rope_base=100)[:, 0])


@pytest.fixture
def blip2_folder(tmp_path):
    """A sharded BLIP-2: the tower in two files, a language model in a third that is never fetched."""
    state = random_vit(hidden=64, layer_scale=False)
    names = published.blip2(state)
    first = dict(list(names.items())[:10])
    shards = {"model-00001-of-00003.safetensors": first | {"query_tokens": torch.zeros(1)}}
    shards["model-00002-of-00003.safetensors"] = {name: names[name] for name in names.keys() - first.keys()}
    weight_map = {key: file for file, tensors in shards.items() for key in tensors}
    weight_map["language_model.lm_head.weight"] = "model-00003-of-00003.safetensors"
    for file, tensors in shards.items():
        written(tensors, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path, state


def test_blip2_gives_the_class_token_after_one_layer_norm(blip2_folder):
    folder, state = blip2_folder
    spec = tiny("blip2-eva-vit-g", 32, config={**TINY_HF, "intermediate_size": 64})
    once = assert_gives(spec, folder, lambda x: vit_tokens(state, x)[:, 0])

    def twice(pixels):
        cls = vit_tokens(state, pixels)[:, 0]
        return functional.layer_norm(cls, cls.shape[-1:], state["norm.weight"], state["norm.bias"], 1e-6)

    tiles = tiles_for(spec)
    wrong = twice(pixels_of(tiles, spec)).numpy()  # transformers' own pooler_output
    assert np.abs(once.encode(tiles) - wrong).max() > 0.1 * np.abs(wrong).max()


def test_plip_projects_the_class_token(tmp_path):
    state = random_vit(hidden=64, layer_scale=False, patch_bias=False, pre_norm=True)
    projection = torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
    path = written(published.clip(state, projection), tmp_path / "pytorch_model.bin")
    spec = tiny("plip", 16, config={**TINY_HF, "intermediate_size": 64, "projection_dim": 16})
    assert_gives(spec, path, lambda x: vit_tokens(state, x, eps=1e-5, mlp="quick_gelu")[:, 0] @ projection.T)


def _normed(x, state, name):
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def _drawn(seed, **shapes):
    generator = torch.Generator().manual_seed(seed)
    return {name.replace("__", "."): 0.3 * torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


CONCH_NORMS = {"ln_q": 24, "ln_k": 32, "ln_contrast": 24}


def conch_norms(prefix):
    shapes = {f"{'' if name == 'ln_contrast' else 'attn_pool_contrast.'}{name}": n for name, n in CONCH_NORMS.items()}
    return {
        f"{prefix}{name}.{part}": torch.linspace(0.5, 1.5, n)
        for name, n in shapes.items()
        for part in ("weight", "bias")
    }


def test_conch_pools_with_one_learned_query(tmp_path):
    trunk = random_vit(hidden=128, layer_scale=False)
    pool = _drawn(3, query=(1, 24), attn__q_proj_weight=(24, 24), attn__k_proj_weight=(24, 32),
                  attn__v_proj_weight=(24, 32), attn__in_proj_bias=(72,), attn__out_proj__weight=(24, 24),
                  attn__out_proj__bias=(24,))  # fmt: skip
    norms = conch_norms("visual.")
    stored = {f"visual.trunk.{name}": tensor for name, tensor in trunk.items()}
    stored |= {f"visual.attn_pool_contrast.{name}": tensor for name, tensor in pool.items()} | norms
    stored |= {name: torch.zeros(2) for name in ("text.cls_emb", "logit_scale", "visual.proj_contrast")}
    stored |= {name: torch.zeros(2) for name in ("visual.attn_pool_caption.query", "visual.ln_caption.bias")}
    spec = tiny("conch", 24, trunk={"model_name": "vit_base_patch16_224", **TINY_VIT}, n_heads=2)

    def expected(pixels):
        tokens = _normed(vit_tokens(trunk, pixels), norms, "visual.attn_pool_contrast.ln_k")
        query = _normed(pool["query"], norms, "visual.attn_pool_contrast.ln_q")
        bias = pool["attn.in_proj_bias"].chunk(3)
        q, k, v = (
            x @ pool[f"attn.{name}_proj_weight"].T + b
            for x, name, b in zip((query, tokens, tokens), "qkv", bias, strict=True)
        )
        out = attention_pool(q, k, v, 2)[:, 0] @ pool["attn.out_proj.weight"].T + pool["attn.out_proj.bias"]
        return _normed(out, norms, "visual.ln_contrast")

    assert_gives(spec, written(stored, tmp_path / "pytorch_model.bin"), expected)


@pytest.mark.parametrize("stored_grid", [2, 4])
def test_conch_v1_5_spreads_its_positions_over_larger_tiles(stored_grid, tmp_path):
    trunk = random_vit(hidden=128, grid=stored_grid)
    trunk["pos_embed"] *= 20  # so that where exactly the grid is sampled shows in the features
    pool = _drawn(4, query=(1, 24), to_q__weight=(24, 24), to_kv__weight=(48, 32), to_out__weight=(24, 24))
    norms = conch_norms("")
    stored = {f"trunk.{name}": tensor for name, tensor in trunk.items()} | norms
    stored |= {f"attn_pool_contrast.{name}": tensor for name, tensor in pool.items()}
    small = {**TINY_VIT, "img_size": 56}
    spec = tiny(
        "conch-v1.5",
        24,
        tile_px=56,
        trunk={"model_name": "vit_large_patch16_224", **small, "init_values": 1},
        n_heads=2,
    )

    def expected(pixels):
        positions = trunk["pos_embed"]
        if stored_grid == 2:
            grid = positions[:, 1:].reshape(1, 2, 2, 32).permute(0, 3, 1, 2)
            grid = functional.interpolate(grid, scale_factor=4.1 / 2, mode="bicubic")
            positions = torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
        tokens = _normed(vit_tokens(trunk | {"pos_embed": positions}, pixels), norms, "attn_pool_contrast.ln_k")
        query = _normed(pool["query"], norms, "attn_pool_contrast.ln_q") @ pool["to_q.weight"].T
        keys, values = (tokens @ pool["to_kv.weight"].T).chunk(2, dim=-1)
        out = attention_pool(query, keys, values, 2)[:, 0] @ pool["to_out.weight"].T
        return _normed(out, norms, "ln_contrast")

    assert_gives(spec, written(stored, tmp_path / "pytorch_model_vision.bin"), expected)


def test_keep_projects_to_unit_length(tmp_path):
    trunk = random_vit(hidden=128)
    head = _drawn(5, w0=(24, 32), b0=(24,), w2=(24, 24), b2=(24,))
    stored = published.renamed(trunk, [(r"(ls\d)\.gamma", r"\1.weight"), ("^", "visual.")])
    for layer in (0, 2):
        stored[f"visual_head.{layer}.weight"], stored[f"visual_head.{layer}.bias"] = (
            head[f"w{layer}"],
            head[f"b{layer}"],
        )
    stored |= {"text.pooler.dense.bias": torch.zeros(3), "logit_scale": torch.zeros(1)}
    spec = tiny("keep", 24, trunk={"model_name": "vit_large_patch16_224", **TINY_VIT, "init_values": 1})

    def expected(pixels):
        hidden = functional.gelu(vit_tokens(trunk, pixels)[:, 0] @ head["w0"].T + head["b0"])
        return functional.normalize(hidden @ head["w2"].T + head["b2"], dim=-1)

    assert_gives(spec, written(stored, tmp_path / "model.safetensors"), expected)
