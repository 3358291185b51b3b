"""TIAToolbox: `DeepFeatureExtractor` over whole slides with its own tissue mask, with the shared network.

It finds no resolution in these files, so that it is told the one that OpenSlide reads.
"""

from typing import Any

import numpy as np
import openslide
import tiatoolbox
import torch
import zarr
from tiatoolbox.models.architecture.vanilla import _infer_batch
from tiatoolbox.models.engine.deep_feature_extractor import DeepFeatureExtractor
from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
from tiatoolbox.models.models_abc import ModelABC

from extract_peers.shared import MPP, TILE_PX, TimedNetwork, finish, job_of, parser, transform_of


class Model(ModelABC):
    """The shared network as TIAToolbox wants models: batches (N, H, W, 3), features in a list."""

    def __init__(self, network: TimedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return features of (N, 3, H, W)."""
        return self.network(pixels)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> list[np.ndarray]:
        """Return features of (N, H, W, 3)."""
        return [_infer_batch(model=model, batch_data=batch_data, device=device)]


def main() -> None:
    """Extract all slides."""
    job = job_of(parser(__doc__).parse_args())
    network, transform = TimedNetwork(job), transform_of(job)
    model = Model(network)
    model.preproc_func = lambda tile: transform(tile).permute(1, 2, 0)
    extractor = DeepFeatureExtractor(model, batch_size=job.batch, num_workers=job.workers, device="cpu", verbose=False)
    at: list[dict[str, Any]] = [{"units": "mpp", "resolution": MPP}]
    side = [TILE_PX, TILE_PX]
    config = IOPatchPredictorConfig(
        input_resolutions=at, output_resolutions=at, patch_input_shape=side, stride_shape=side
    )
    features = []
    for path in job.slides:
        with openslide.OpenSlide(path) as slide:
            mpp = float(slide.properties[openslide.PROPERTY_NAME_MPP_X])
        written = extractor.run(
            [path],
            patch_mode=False,
            ioconfig=config,
            save_dir=job.out / path.stem,
            output_type="zarr",
            overwrite=True,
            wsireader_kwargs={"mpp": (mpp, mpp), "power": None},
        )
        features.append(np.asarray(zarr.open(str(written[path]), mode="r")["features"]))
    finish(job, network, version=tiatoolbox.__version__, features=features, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
