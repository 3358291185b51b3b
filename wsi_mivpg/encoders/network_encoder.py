"""Run a network that turns normalised tiles into features.

Building the network and checking its weights is `load`'s job.
"""

import numpy as np
import numpy.typing as npt
import torch

from wsi_mivpg.encoders.registry import EncoderSpec
from wsi_mivpg.errors import EncoderError


class NetworkEncoder:
    """A network that pools each tile to one vector, in float32 so that features agree everywhere."""

    def __init__(self, spec: EncoderSpec, network: torch.nn.Module, device: str) -> None:
        self.spec = spec
        self.device = torch.device(device)
        self._network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        # (x / 255 - mean) / std, folded into one multiplication and one subtraction.
        std = torch.tensor(spec.std, device=self.device).view(1, 3, 1, 1)
        self._scale = 1 / (255 * std)
        self._shift = torch.tensor(spec.mean, device=self.device).view(1, 3, 1, 1) / std

    @torch.inference_mode()
    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Turn uint8[N, tile_px, tile_px, 3] tiles into float16[N, dim] features.

        Raises:
            EncoderError: the tiles have another type or size.
        """
        side = self.spec.tile_px
        if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1:] != (side, side, 3):
            raise EncoderError(
                f"{self.spec.name} takes uint8 tiles of {side}x{side}x3, got {tiles.dtype} {tiles.shape[1:]}"
            )
        if len(tiles) == 0:
            return np.empty((0, self.spec.dim), dtype=np.float16)
        # NHWC seen as NCHW is channels_last already: nothing is copied but the bytes to the device.
        on_device = torch.from_numpy(np.require(tiles, requirements=["C", "W"])).to(self.device)
        pixels = on_device.permute(0, 3, 1, 2)
        features = self._network(pixels.float() * self._scale - self._shift)
        array: npt.NDArray[np.float16] = features.half().cpu().numpy()
        return array
