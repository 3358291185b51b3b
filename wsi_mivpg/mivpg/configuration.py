"""Sizes and switches of the adapter. The defaults are BLIP-2's Q-Former with correlated self-attention."""

from collections.abc import Sequence
from typing import Any, Literal

from transformers import PreTrainedConfig

from wsi_mivpg.errors import ModelError


class MivpgConfig(PreTrainedConfig):
    """Configuration of `MivpgModel`; field names follow Hugging Face's ``Blip2QFormerConfig``.

    What the paper leaves open is a field; see docs, "What the paper leaves open".

    Args:
        input_dim: width D of the bag's features. ``None``: instances already are `encoder_hidden_size` wide
            and enter unchanged, as in BLIP-2; else a LayerNorm and a Linear bring them there.
        csa: correlate instances at the cross-attentions.
        csa_position: ``"pre"``: a cross-attention reads the instances that its own layer's CSA has updated;
            ``"post"``: CSA follows it, and the next cross-attention reads the updated ones. There is then no CSA in
            the last cross-attention layer, where nobody would read them.
        csa_carry: ``"cumulative"`` hands the updated instances on to the next cross-attention layer,
            ``"reset"`` starts each layer from the projected features.
        csa_tie_down: let the layer's cross-attention make the summary, with its own weights, in place of a separate
            way down; with ``"post"`` the summary then costs nothing.
        csa_layers: indices of the layers with CSA. ``None``: all with cross-attention.
        ppeg: pyramid positions at every cross-attention: ``"grid"`` on the slide's true tile grid, which needs
            `coords`; ``"sequence"`` as in TransMIL, where the order of instances matters; ``"none"``.
        ppeg_order: add them before CSA updates the instances, or after.
        absorb_from: bags of at least so many instances are read in chunks with folded weights, without keys and
            values; smaller ones, and all if ``None``, with PyTorch's SDPA, many bags at a time. The result is the same.
            It is twice as fast from some 4096 instances on, and needs memory for one chunk in place of all keys.
        chunk_size: instances per chunk. ``None``: 4096 on a CPU, where 512 to 4096 are equally fast and more are
            slower, and 32768 on a GPU (not measured).

    Raises:
        ModelError: a size does not divide, or a value is outside its range or does not go with another.
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
        csa_position: Literal["pre", "post"] = "pre",
        csa_carry: Literal["cumulative", "reset"] = "cumulative",
        csa_tie_down: bool = False,
        csa_layers: Sequence[int] | None = None,
        ppeg: Literal["none", "sequence", "grid"] = "none",
        ppeg_order: Literal["before_csa", "after_csa"] = "before_csa",
        absorb_from: int | None = 4096,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        if hidden_size % num_attention_heads:
            raise ModelError(
                f"hidden_size {hidden_size} is not a multiple of num_attention_heads {num_attention_heads}"
            )
        _one_of("csa_position", csa_position, ("pre", "post"))
        _one_of("csa_carry", csa_carry, ("cumulative", "reset"))
        _one_of("ppeg", ppeg, ("none", "sequence", "grid"))
        _one_of("ppeg_order", ppeg_order, ("before_csa", "after_csa"))
        sizes = {
            "num_hidden_layers": num_hidden_layers,
            "cross_attention_frequency": cross_attention_frequency,
            "num_query_tokens": num_query_tokens,
            "absorb_from": absorb_from,
            "chunk_size": chunk_size,
        }
        for name, value in sizes.items():
            if value is not None and value < 1:
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
        self.csa_position = csa_position
        self.csa_carry = csa_carry
        self.csa_tie_down = csa_tie_down
        self.csa_layers = None if csa_layers is None else list(csa_layers)
        self.ppeg = ppeg
        self.ppeg_order = ppeg_order
        self.absorb_from = absorb_from
        self.chunk_size = chunk_size
        if csa:
            self._check_csa()
        super().__init__(**kwargs)

    @property
    def cross_attention_layers(self) -> range:
        """Indices of the layers with cross-attention."""
        return range(0, self.num_hidden_layers, self.cross_attention_frequency)

    @property
    def layers_with_csa(self) -> list[int]:
        """Indices of the layers with CSA."""
        possible = list(self.cross_attention_layers)
        if self.csa_position == "post":
            possible.pop()
        if not self.csa:
            return []
        return possible if self.csa_layers is None else self.csa_layers

    def _check_csa(self) -> None:
        possible = list(self.cross_attention_layers)
        last = possible[-1]
        if wrong := [index for index in self.csa_layers or () if index not in possible]:
            raise ModelError(f"csa_layers names {wrong}, which have no cross-attention; choose from {possible}")
        if self.csa_position != "post":
            return
        if self.csa_carry == "reset":
            raise ModelError(
                "csa_position 'post' with csa_carry 'reset' updates instances that nobody reads; use 'pre'"
            )
        if last == 0 or last in (self.csa_layers or ()):
            raise ModelError(
                f"csa_position 'post' in layer {last} makes instances that nobody reads: no cross-attention follows; "
                "use 'pre', or leave the layer out of csa_layers"
            )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ModelError(f"{name} is {value!r}; use {' or '.join(map(repr, known))}")
