"""Small BLIP-2 and InstructBLIP checkpoints with transformers' own classes, random weights and real names."""

import re

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
)

WIDTH = 24
QFORMER = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "cross_attention_frequency": 2,
    "layer_norm_eps": 1e-9,
}
SIZES = {**QFORMER, "encoder_hidden_size": WIDTH, "num_query_tokens": 5}
PARTS = {
    "num_query_tokens": 5,
    "qformer_config": {**QFORMER, "vocab_size": 40, "hidden_dropout_prob": 0.25},
    "vision_config": {
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    },
    "text_config": {
        "model_type": "opt",
        "vocab_size": 600,
        "hidden_size": 48,
        "word_embed_proj_dim": 48,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    },
}
FAMILIES = {
    "blip-2": (Blip2Config, Blip2ForConditionalGeneration),
    "instructblip": (InstructBlipConfig, InstructBlipForConditionalGeneration),
}
OURS = ("query_tokens", "qformer.", "language_projection.")
KEY = "qformer.encoder.layer.2.attention.attention.key.weight"


def random_model(family):
    """Return transformers' model of a family, every parameter away from its start."""
    torch.manual_seed(0)
    config, architecture = FAMILIES[family]
    model = architecture(config(**PARTS)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def publish(family, folder):
    """Return transformers' model of a family and the folder, where it has written its shards."""
    model = random_model(family)
    model.save_pretrained(folder, max_shard_size="100KB")
    return model, folder


def tensors_of(model):
    """Return a model's tensors that concern us, by Hugging Face's names."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(OURS)}


def as_lavis(tensors, projection="t5_proj"):
    """Rename Hugging Face's tensors to LAVIS's names."""
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^qformer\.(embeddings\.)?layernorm\.", "qformer.embeddings.LayerNorm.", name)
        name = name.replace("attention.attention.", "attention.self.").replace("language_projection", projection)
        renamed[re.sub(r"^qformer\.", "Qformer.bert.", name)] = tensor
    return renamed


def their_prompt(model, instances):
    text = {"input_ids": None} if isinstance(model, InstructBlipForConditionalGeneration) else {}
    return model.qformer(
        **text, query_embeds=model.query_tokens, encoder_hidden_states=instances[None]
    ).last_hidden_state


def assert_same_tensors(parts, tensors):
    """Every tensor of the checkpoint is in the model or in the projection, bit for bit, in float32."""
    own = parts.model.state_dict()
    weight, bias = parts.language_projection
    own |= {"language_projection.weight": weight, "language_projection.bias": bias}
    assert {tensor.dtype for tensor in own.values()} == {torch.float32}
    for name, tensor in tensors.items():
        assert torch.equal(own[name], tensor.float()), name


def write_lavis(tensors, folder, projection="t5_proj"):
    """Write Hugging Face's tensors as LAVIS does, and return the file."""
    torch.save({"model": as_lavis(tensors, projection), "optimizer": {}, "epoch": 3}, folder / "blip2.pth")
    return folder / "blip2.pth"
