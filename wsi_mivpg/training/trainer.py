"""The Trainer of report models: a loss per report token, chosen by written reports, stopped at the first NaN.

It computes; what is trained on which cases, and where the result goes, is decided in `train`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EvalPrediction
from transformers.trainer_utils import EvalLoopOutput

from wsi_mivpg.captioner import SlideCaptioner
from wsi_mivpg.captioner.sequences import IGNORED
from wsi_mivpg.errors import ModelError, TrainingError
from wsi_mivpg.training.cases import listed
from wsi_mivpg.training.checkpoints import WholeCheckpoints, last_checkpoint

Written = Callable[[SlideCaptioner, int], dict[str, float]]
"""Is asked at an evaluation, with the model and the step, for metrics of reports that the model writes."""


class CaptionTrainer(WholeCheckpoints):
    """Trains a `SlideCaptioner`.

    The loss is the mean over the report tokens of a whole optimiser step, all processes and all accumulated batches:
    the Trainer counts them and hands the count to the model.
    """

    def __init__(self, *, written: Written | None = None, **given: Any) -> None:
        """`given` is what any Trainer is given."""
        super().__init__(compute_metrics=_mean_per_token, **given)
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        if plugin is not None and "FULL_STATE_DICT" not in str(plugin.state_dict_type):
            raise TrainingError("FSDP must gather what it saves; set fsdp_state_dict_type to FULL_STATE_DICT")
        self.written = written
        self._seen: list[str] = []

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the batch's share of the step's mean loss.

        Raises:
            TrainingError: the loss is NaN or infinite, or the model refuses a case; names the cases.
        """
        self._seen += inputs["case_ids"]
        try:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        except ModelError as error:  # of features that are not numbers, for example
            raise self._stopped(str(error), self._guilty(model, inputs)) from error
        if not torch.isfinite(loss):
            raise self._stopped(f"the loss is {loss.item()}", self._guilty(model, inputs))
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[None, Tensor, Tensor]:
        """Return per case the summed loss and, as labels, the number of tokens: what a mean per token needs."""
        inputs = self._prepare_inputs(inputs)
        labels: Tensor = inputs["labels"]
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**inputs).logits
        losses = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        return None, losses.sum(dim=1), labels.ne(IGNORED).sum(dim=1)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Add the metrics of written reports before anybody reads the metrics."""
        output = super().evaluation_loop(*args, **kwargs)
        if self.written is not None and output.metrics is not None:
            captioner = self.accelerator.unwrap_model(self.model)
            with self.accelerator.autocast():
                found = self.written(captioner, self.state.global_step)
            output.metrics.update({f"eval_{name}": value for name, value in found.items()})
        return output

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Stop before a gradient that is not a number reaches the weights."""
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        if not math.isfinite(float(norm)):
            raise self._stopped(f"the gradient's norm is {float(norm)}", self._seen)
        self._seen = []
        return norm

    def _guilty(self, model: nn.Module, inputs: dict[str, Any]) -> list[str]:
        """Return the cases that fail even when they are alone; all, if it is none of them."""
        sizes = [sum(slides) for slides in inputs["slide_sizes"]]
        instances = inputs["instances"].split(sizes)
        coords = [None] * len(sizes) if inputs.get("coords") is None else inputs["coords"].split(sizes)
        guilty = []
        for index, case_id in enumerate(inputs["case_ids"]):
            alone = {
                "instances": instances[index],
                "slide_sizes": [inputs["slide_sizes"][index]],
                "labels": inputs["labels"][index : index + 1],
                "coords": coords[index],
            }
            try:
                with torch.no_grad():
                    sound = bool(torch.isfinite(self.accelerator.unwrap_model(model)(**alone).loss))
            except ModelError:
                sound = False
            if not sound:
                guilty.append(case_id)
        return guilty or inputs["case_ids"]

    def _stopped(self, what: str, case_ids: list[str]) -> TrainingError:
        kept = last_checkpoint(Path(str(self.args.output_dir)))
        return TrainingError(
            f"step {self.state.global_step + 1}: {what}, with {listed(case_ids)}; "
            f"{f'{kept} is kept' if kept else 'no checkpoint was made yet'}. Look at these cases' bags with "
            "`wsi-mivpg bags check`; if they are sound, lower the learning rates, or set precision=fp32"
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write what is trained; of FSDP's gathered weights, too."""
        if state_dict is None:
            super()._save(output_dir)
        elif self.args.should_save:
            captioner, folder = self._captioner(), Path(str(output_dir))
            trained = captioner.trained_state().keys()
            folder.mkdir(parents=True, exist_ok=True)
            captioner.config.save_pretrained(folder)
            kept = {name: tensor.float().contiguous() for name, tensor in state_dict.items() if name in trained}
            save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the trained tensors strictly."""
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._captioner().load_trained(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        """Likewise."""
        if self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            self._captioner().load_trained(Path(str(self.state.best_model_checkpoint)))

    def _captioner(self) -> SlideCaptioner:
        captioner = self.accelerator.unwrap_model(self.model)
        assert isinstance(captioner, SlideCaptioner)
        return captioner


def _mean_per_token(prediction: EvalPrediction) -> dict[str, float]:
    losses, tokens = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    return {"loss": float(losses.sum(dtype=np.float64) / tokens.sum())}
