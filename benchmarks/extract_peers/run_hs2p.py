"""hs2p: its tissue, its tiles, its reader; a plain loop over them with forked workers and the shared network."""

from typing import Any

import hs2p
import numpy as np
import torch
from hs2p import SegmentationConfig, SlideSpec, TilingConfig, tile_slide
from hs2p.wsi.streaming.stream import open_reader_for_result
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from extract_peers.shared import MPP, TILE_PX, TimedNetwork, finish, job_of, parser, transform_of


class Tiles(Dataset[torch.Tensor]):
    """The tiles of one hs2p result; each worker opens the slide for itself."""

    def __init__(self, result: Any, transform: Any) -> None:
        self._result = result
        self._transform = transform
        self._reader: Any = None

    def __len__(self) -> int:
        return self._result.num_tiles

    def __getitem__(self, index: int) -> torch.Tensor:
        if self._reader is None:
            self._reader = open_reader_for_result(self._result)
        tiles = self._result.tiles
        side, corner = tiles.read_tile_size_px, (int(tiles.x[index]), int(tiles.y[index]))
        tile = Image.fromarray(np.asarray(self._reader.read_region(corner, tiles.read_level, (side, side))))
        return self._transform(tile if side == TILE_PX else tile.resize((TILE_PX, TILE_PX)))


@torch.inference_mode()
def main() -> None:
    """Extract all slides."""
    job = job_of(parser(__doc__).parse_args())
    network, transform = TimedNetwork(job), transform_of(job)
    tiling = TilingConfig(requested_spacing_um=MPP, requested_tile_size_px=TILE_PX, tolerance=0.05, overlap=0.0)
    features, backends = [], []
    for path in job.slides:
        result = tile_slide(
            SlideSpec(sample_id=path.stem, image_path=path),
            tiling=tiling,
            segmentation=SegmentationConfig(method="hsv"),
            num_workers=job.workers,
        )
        loader = DataLoader(Tiles(result, transform), batch_size=job.batch, num_workers=job.workers)
        found = torch.cat([network(pixels) for pixels in loader]).numpy()
        np.save(job.out / f"{path.stem}.npy", found)
        features.append(found)
        backends.append(result.backend)
    more = {"backends": backends, "threads": torch.get_num_threads()}
    finish(job, network, version=hs2p.__version__, features=features, **more)


if __name__ == "__main__":
    main()
