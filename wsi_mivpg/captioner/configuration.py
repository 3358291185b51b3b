"""What a report model is made of, and which bags it may read."""

from typing import Any

from transformers import PreTrainedConfig

DEFAULT_LORA: dict[str, Any] = {
    "r": 8,
    "alpha": 16,
    "dropout": 0.05,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
}


class CaptionerConfig(PreTrainedConfig):
    """Configuration of `SlideCaptioner`.

    Args:
        mivpg: arguments of `MivpgConfig`; its ``input_dim`` is the bag's feature width.
        language_model: ``"smollm2-135m-instruct"``, a local folder, or a Hugging Face id.
        language_model_sha256: hash of the base weights that the adapter was trained on; ``None`` for hub ids.
        lora: ``{"r", "alpha", "dropout", "target_modules"}``, or ``None`` to leave the language model as it is.
        prompt: the user's turn, after the visual prompt.
        max_new_tokens: default limit on a report's length.
        encoder, encoder_weights_sha256, feature_dim, target_mpp, tile_px: the contract with bags; a bag with
            other values is refused. ``None`` accepts any.
        demonstration: trained on invented data; reports must say so.
    """

    model_type = "wsi_mivpg_captioner"

    def __init__(
        self,
        mivpg: dict[str, Any] | None = None,
        language_model: str = "smollm2-135m-instruct",
        language_model_sha256: str | None = None,
        lora: dict[str, Any] | None = None,
        prompt: str = "Describe the tissue.",
        max_new_tokens: int = 96,
        encoder: str | None = None,
        encoder_weights_sha256: str | None = None,
        feature_dim: int | None = None,
        target_mpp: float | None = None,
        tile_px: int | None = None,
        demonstration: bool = False,
        **kwargs: Any,
    ) -> None:
        self.mivpg = dict(mivpg or {})
        self.language_model = language_model
        self.language_model_sha256 = language_model_sha256
        self.lora = None if lora is None else {**DEFAULT_LORA, **lora}
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.encoder = encoder
        self.encoder_weights_sha256 = encoder_weights_sha256
        self.feature_dim = feature_dim
        self.target_mpp = target_mpp
        self.tile_px = tile_px
        self.demonstration = demonstration
        super().__init__(**kwargs)
