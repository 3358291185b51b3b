"""A small adapter for tests, and the two ways in which it can read a bag."""

from typing import Any

import torch

from wsi_mivpg.mivpg import MivpgConfig, MivpgModel

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "encoder_hidden_size": 24,
    "num_query_tokens": 5,
}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"csa_carry": "reset"},
    {"csa_tie_down": True},
    {"csa_position": "post"},
    {"csa_position": "post", "csa_tie_down": True},
    {"csa_layers": [2]},
    {"csa": False},
    {"input_dim": None},
]
"""Every switch of CSA away from its default, and what goes around it."""
PLACED: list[dict[str, Any]] = [
    {"ppeg": "sequence"},
    {"ppeg": "sequence", "ppeg_order": "after_csa"},
    {"ppeg": "sequence", "ppeg_order": "after_csa", "csa_position": "post"},
    {"ppeg": "sequence", "csa_carry": "reset", "csa_tie_down": True},
    {"ppeg": "grid", "ppeg_order": "after_csa", "csa_carry": "reset"},
]
"""With positions, where the order of instances or their cells matter."""


def small_model(*, stir: bool = True, **changes: object) -> MivpgModel:
    """A small model in evaluation mode; stirred, its zero-initialised parts have effect."""
    torch.manual_seed(0)
    model = MivpgModel(MivpgConfig(**{**SIZES, "input_dim": 40, **changes})).eval()
    if stir:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def width(model: MivpgModel) -> int:
    """The width of the bags that a model reads."""
    return model.config.input_dim or model.config.encoder_hidden_size
