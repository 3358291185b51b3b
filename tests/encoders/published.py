"""Tiny checkpoints under published names: neutral tensors of `reference.random_vit`, renamed as each publisher does."""

import re


def renamed(state, rules):
    """Rename every tensor by the rules, all of them, in order."""
    out = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        out[name] = tensor
    return out


def dinov2(state):
    """Meta's DINOv2 with registers (OpenMidnight): packed SwiGLU as w12 and w3, and the mask token."""
    rules = [(r"^reg_token", "register_tokens"), (r"mlp\.fc1", "mlp.w12"), (r"mlp\.fc2", "mlp.w3")]
    return renamed(state, rules) | {"mask_token": state["cls_token"][0]}


def genbio(state):
    """DINOv3's own names, with the SwiGLU's gate and value apart and the rotary periods stored."""
    out = renamed(state, [(r"^reg_token", "storage_tokens"), (r"mlp\.fc2", "mlp.w3")])
    for name in [name for name in out if ".mlp.fc1." in name]:
        gate, value = out.pop(name).chunk(2)
        out |= {name.replace("fc1", "w1"): gate, name.replace("fc1", "w2"): value}
    return out | {"rope_embed.periods": state["cls_token"][0, 0, :4]}


def _apart(state, pattern, names):
    """Split fused query-key-value tensors."""
    out = {}
    for name, tensor in state.items():
        if found := re.search(pattern, name):
            parts = zip(names, tensor.chunk(3), strict=True)
            out |= {name.replace(found[0], part): piece for part, piece in parts if part is not None}
        else:
            out[name] = tensor
    return out


def hf_dinov2(state):
    """transformers' Dinov2Model, with or without registers, as phikon-v2, midnight and hibou publish it."""
    rules = [
        (r"^(cls_token|mask_token)", r"embeddings.\1"),
        (r"^reg_token", "embeddings.register_tokens"),
        (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^blocks\.", "encoder.layer."),
        (r"attn\.proj", "attention.output.dense"),
        (r"ls(\d)\.gamma", r"layer_scale\1.lambda1"),
        (r"^norm\.", "layernorm."),
    ]
    attention = [f"attention.attention.{part}" for part in ("query", "key", "value")]
    out = _apart(renamed(state, rules), r"attn\.qkv", attention)
    if out["encoder.layer.0.mlp.fc1.weight"].shape[0] != out["encoder.layer.0.mlp.fc2.weight"].shape[1]:
        out = renamed(out, [(r"mlp\.fc1", "mlp.weights_in"), (r"mlp\.fc2", "mlp.weights_out")])
    return out | {"embeddings.mask_token": state["cls_token"][0]}


def hf_vit(state):
    """transformers' ViTModel without a pooler, as phikon publishes it."""
    rules = [
        (r"^cls_token", "embeddings.cls_token"),
        (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^blocks\.", "encoder.layer."),
        (r"attn\.proj", "attention.output.dense"),
        (r"norm1", "layernorm_before"),
        (r"norm2", "layernorm_after"),
        (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
        (r"^norm\.", "layernorm."),
    ]
    attention = [f"attention.attention.{part}" for part in ("query", "key", "value")]
    return _apart(renamed(state, rules), r"attn\.qkv", attention)


def hf_dinov3(state):
    """transformers' DINOv3ViTModel: keys without a bias."""
    rules = [
        (r"^cls_token", "embeddings.cls_token"),
        (r"^reg_token", "embeddings.register_tokens"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings"),
        (r"^blocks\.", "layer."),
        (r"attn\.proj", "attention.o_proj"),
        (r"ls(\d)\.gamma", r"layer_scale\1.lambda1"),
        (r"mlp\.fc1", "mlp.up_proj"),
        (r"mlp\.fc2", "mlp.down_proj"),
    ]
    out = _apart(renamed(state, rules), r"attn\.qkv", [f"attention.{part}_proj" for part in "qkv"])
    out = {name: tensor for name, tensor in out.items() if not name.endswith("k_proj.bias")}
    return out | {"embeddings.mask_token": state["cls_token"]}


def blip2(state):
    """The vision tower inside Salesforce's BLIP-2."""
    rules = [
        (r"^cls_token", "embeddings.class_embedding"),
        (r"^pos_embed", "embeddings.position_embedding"),
        (r"^patch_embed\.proj", "embeddings.patch_embedding"),
        (r"^blocks\.", "encoder.layers."),
        (r"attn\.qkv", "self_attn.qkv"),
        (r"attn\.proj", "self_attn.projection"),
        (r"norm(\d)", r"layer_norm\1"),
        (r"^norm\.", "post_layernorm."),
        (r"^", "vision_model."),
    ]
    return renamed(state, rules)


def clip(state, projection):
    """transformers' CLIP (PLIP): its vision half, some of its text half, and the buffer that old versions stored."""
    rules = [
        (r"^pos_embed", "embeddings.position_embedding.weight"),
        (r"^cls_token", "embeddings.class_embedding"),
        (r"^patch_embed\.proj", "embeddings.patch_embedding"),
        (r"^blocks\.", "encoder.layers."),
        (r"attn\.proj", "self_attn.out_proj"),
        (r"norm(\d)", r"layer_norm\1"),
        (r"^norm_pre", "pre_layrnorm"),
        (r"^norm\.", "post_layernorm."),
        (r"^", "vision_model."),
    ]
    out = _apart(renamed(state, rules), r"attn\.qkv", [f"self_attn.{part}_proj" for part in "qkv"])
    out["vision_model.embeddings.class_embedding"] = state["cls_token"][0, 0]
    out["vision_model.embeddings.position_embedding.weight"] = state["pos_embed"][0]
    rest = ("text_model.final_layer_norm.weight", "text_projection.weight", "logit_scale")
    rest = {name: projection[0] for name in (*rest, "vision_model.embeddings.position_ids")}
    return out | rest | {"visual_projection.weight": projection}


def musk(state):
    """BEiT-3 in torchscale: branch A is the image's, branch B the text's; two positions are padding."""
    rules = [
        (r"^cls_token", "vision_embed.cls_token"),
        (r"^patch_embed\.", "vision_embed."),
        (r"^pos_embed", "encoder.embed_positions.A.weight"),
        (r"^blocks\.(\d+)\.attn\.norm", r"encoder.layers.\1.self_attn.inner_attn_ln.A"),
        (r"^blocks\.(\d+)\.attn\.proj", r"encoder.layers.\1.self_attn.out_proj.A"),
        (r"^blocks\.(\d+)\.norm1", r"encoder.layers.\1.self_attn_layer_norm.A"),
        (r"^blocks\.(\d+)\.norm2", r"encoder.layers.\1.final_layer_norm.A"),
        (r"^blocks\.(\d+)\.mlp\.norm", r"encoder.layers.\1.ffn.A.ffn_layernorm"),
        (r"^blocks\.(\d+)\.mlp", r"encoder.layers.\1.ffn.A"),
        (r"^blocks", "encoder.layers"),
        (r"^norm\.", "encoder.layer_norm.A."),
        (r"^", "beit3."),
    ]
    out = _apart(renamed(state, rules), r"attn\.qkv", [f"self_attn.{part}_proj.A" for part in "qkv"])
    positions = out.pop("beit3.encoder.embed_positions.A.weight")[0]
    out["beit3.encoder.embed_positions.A.weight"] = positions[[0, 0, *range(len(positions))]]
    text = {name.replace(".A.", ".B."): tensor for name, tensor in out.items() if ".A." in name}
    others = ("beit3.text_embed.weight", "beit3.vision_embed.mask_token", "vision_head.weight", "language_head.weight")
    return out | text | {name: positions for name in (*others, "logit_scale")}
