"""Run a network that turns tiles into features: on its device, in the precision asked for, in pieces that fit.

Building the network and checking its weights is `load`'s job.
"""

import threading
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from wsi_mivpg.encoders.fold import fold_batch_norms
from wsi_mivpg.encoders.registry import EncoderSpec
from wsi_mivpg.errors import EncoderError

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class NetworkEncoder:
    """A network that pools each tile to one vector.

    Attributes:
        spec: what it takes and gives.
        device: where it runs.
        precision: of its arithmetic; features leave as float16 in any case.
        most_at_once: tiles that fit the device's memory, once more did not.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        network: torch.nn.Module,
        device: str,
        precision: Precision = "fp32",
        *,
        compiled: bool = False,
    ) -> None:
        self.spec = spec
        self.device = torch.device(device)
        self.precision: Precision = precision
        sample = torch.rand(1, 3, spec.tile_px, spec.tile_px, generator=torch.Generator().manual_seed(0))
        folded = fold_batch_norms(network.eval(), sample).to(self.device)
        self._network: torch.nn.Module = folded.to(memory_format=torch.channels_last)
        if compiled:
            self._network.compile()
        # (x / 255 - mean) / std, folded into one multiplication and one subtraction.
        std = torch.tensor(spec.std, device=self.device).view(1, 3, 1, 1)
        self._scale = 1 / (255 * std)
        self._shift = torch.tensor(spec.mean, device=self.device).view(1, 3, 1, 1) / std
        self._thread = threading.local()
        self.most_at_once: int | None = None

    @torch.inference_mode()
    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Turn uint8[N, side, side, 3] tiles into float16[N, dim] features.

        Tiles of another side than the network's are resized on the device. Where the device's memory is too small for
        all, they go in halves, and later calls do so at once. Safe from several threads; on an accelerator one call's
        copies then run beside another's arithmetic.

        Raises:
            EncoderError: the tiles have another type or shape, or even one is too much for the device.
        """
        if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1] != tiles.shape[2] or tiles.shape[3] != 3:
            raise EncoderError(f"{self.spec.name} takes uint8 tiles of NxSxSx3, got {tiles.dtype} {tiles.shape}")
        if len(tiles) == 0:
            return np.empty((0, self.spec.dim), dtype=np.float16)
        on_device = self._to_device(torch.from_numpy(np.require(tiles, requirements=["C", "W"])))
        most = self.most_at_once or len(tiles)
        while True:
            try:
                features = torch.cat([self._features(part) for part in on_device.split(most)])
                break
            except torch.OutOfMemoryError as error:
                if most == 1:
                    raise EncoderError(
                        f"{self.spec.name}: one tile is too much for the memory of {self.device}; "
                        "free it of other work, or take another --device"
                    ) from error
                most = self.most_at_once = -(-most // 2)
                torch.cuda.empty_cache()
        array: npt.NDArray[np.float16] = self._to_host(features)
        return array

    def _features(self, tiles: torch.Tensor) -> torch.Tensor:
        pixels = tiles.permute(0, 3, 1, 2)  # NHWC seen as NCHW is channels_last already: nothing is copied
        if pixels.shape[-1] != self.spec.tile_px:
            # On a processor bytes are resized nine times as fast as floats; accelerators have floats only.
            pixels = pixels if self.device.type == "cpu" else pixels.float()
            side = (self.spec.tile_px, self.spec.tile_px)
            pixels = interpolate(pixels, size=side, mode="bilinear", antialias=True)
        pixels = pixels.float() * self._scale - self._shift
        dtype = _DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            features: torch.Tensor = self._network(pixels)
        return features.half()

    def _to_device(self, tiles: torch.Tensor) -> torch.Tensor:
        """Copy on a stream of this thread's own, so that the accelerator computes another batch meanwhile."""
        if self.device.type != "cuda":
            return tiles.to(self.device)
        copies = self._copies()
        with torch.cuda.stream(copies):
            on_device = tiles.to(self.device, non_blocking=True)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(copies)
        on_device.record_stream(current)
        return on_device

    def _to_host(self, features: torch.Tensor) -> npt.NDArray[np.float16]:
        if self.device.type != "cuda":
            array: npt.NDArray[np.float16] = features.cpu().numpy()
            return array
        host = torch.empty(features.shape, dtype=torch.float16, pin_memory=True)
        host.copy_(features, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))
        done.synchronize()  # of this batch only: what another thread has queued behind it goes on
        array = host.numpy()
        return array

    def _copies(self) -> torch.cuda.Stream:
        stream: torch.cuda.Stream | None = getattr(self._thread, "copies", None)
        if stream is None:
            stream = self._thread.copies = torch.cuda.Stream(self.device)
        return stream


def chosen_precision(asked: str, published: str, device: str) -> Precision:
    """Return the precision to run in.

    Args:
        asked: "fp32", "bf16", "fp16", or "auto".
        published: what the encoder was published with. A half precision is kept on an accelerator; on a processor, and
            for encoders published in fp32, "auto" takes bf16 where the hardware computes it by itself.
        device: where it will run.

    Raises:
        EncoderError: no such precision, or one that the device does not have.
    """
    is_cuda = torch.device(device).type == "cuda"
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if is_cuda else _cpu_has_bf16()
    if asked == "auto":
        if is_cuda and published == "fp16":
            return "fp16"
        return "bf16" if has_bf16 else "fp32"
    for precision in get_args(Precision):
        if precision == asked:
            if asked == "fp16" and not is_cuda:
                raise EncoderError("--precision fp16 needs a GPU; take fp32 or bf16 on a processor")
            chosen: Precision = precision
            return chosen
    raise EncoderError(f"there is no precision {asked!r}; choose auto, fp32, bf16 or fp16")


def _cpu_has_bf16() -> bool:
    capable = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(capable and capable())
