"""Sizes and switches of the adapter. The defaults are BLIP-2's Q-Former with correlated self-attention."""

from typing import Any, Literal

from transformers import PreTrainedConfig

from wsi_mivpg.errors import ModelError


class MivpgConfig(PreTrainedConfig):
    """Configuration of `MivpgModel`; field names follow Hugging Face's ``Blip2QFormerConfig``.

    Args:
        input_dim: width D of the bag's features. ``None``: instances already are `encoder_hidden_size` wide
            and enter unchanged, as in BLIP-2; else a LayerNorm and a Linear bring them there.
        csa: insert correlated self-attention before every cross-attention.
        csa_carry: ``"cumulative"`` hands the updated instances on to the next cross-attention layer,
            ``"reset"`` starts each layer from the projected features. The paper leaves this open.

    Raises:
        ModelError: a size does not divide, or a value is outside its range.
    """

    model_type = "wsi_mivpg_adapter"

    def __init__(
        self,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        encoder_hidden_size: int = 1408,
        cross_attention_frequency: int = 2,
        num_query_tokens: int = 32,
        input_dim: int | None = None,
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.0,
        layer_norm_eps: float = 1e-12,
        initializer_range: float = 0.02,
        csa: bool = True,
        csa_carry: Literal["cumulative", "reset"] = "cumulative",
        **kwargs: Any,
    ) -> None:
        if hidden_size % num_attention_heads:
            raise ModelError(
                f"hidden_size {hidden_size} is not a multiple of num_attention_heads {num_attention_heads}"
            )
        if csa_carry not in ("cumulative", "reset"):
            raise ModelError(f"csa_carry is {csa_carry!r}; use 'cumulative' or 'reset'")
        sizes = {
            "num_hidden_layers": num_hidden_layers,
            "cross_attention_frequency": cross_attention_frequency,
            "num_query_tokens": num_query_tokens,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ModelError(f"{name} is {value}; it must be at least 1")
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.encoder_hidden_size = encoder_hidden_size
        self.cross_attention_frequency = cross_attention_frequency
        self.num_query_tokens = num_query_tokens
        self.input_dim = input_dim
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.csa = csa
        self.csa_carry = csa_carry
        super().__init__(**kwargs)
