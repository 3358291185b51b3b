"""The plain loop, as CLAM and TRIDENT run it: OpenSlide tiles one by one through a DataLoader with forked workers.

Read from the nearest level that is fine enough, resized by Pillow, a new loader for each slide, features to HDF5. With
`--readers threads` the workers are threads of the same process, and nothing else changes.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import openslide
import torch
from torch.utils.data import DataLoader, Dataset

from extract_peers.shared import MPP, TILE_PX, Job, TimedNetwork, finish, job_of, parser, transform_of

MIN_TISSUE = 0.25
THUMBNAIL_UM_PER_PX = 8.0


class Tiles(Dataset[torch.Tensor]):
    """The tissue tiles of one slide; each worker opens it for itself."""

    def __init__(self, path: Path, transform: Any) -> None:
        self._path = path
        self._transform = transform
        self._slide: openslide.OpenSlide | None = None
        with openslide.OpenSlide(path) as slide:
            mpp = float(slide.properties[openslide.PROPERTY_NAME_MPP_X])
            self._level = slide.get_best_level_for_downsample(MPP / mpp)
            self._side = round(TILE_PX * MPP / mpp / slide.level_downsamples[self._level])
            self.corners = tissue_corners(slide, mpp)

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self._slide is None:
            self._slide = openslide.OpenSlide(self._path)
        x, y = self.corners[index].tolist()
        tile = self._slide.read_region((x, y), self._level, (self._side, self._side)).convert("RGB")
        return self._transform(tile if self._side == TILE_PX else tile.resize((TILE_PX, TILE_PX)))


def tissue_corners(slide: openslide.OpenSlide, mpp: float) -> np.ndarray:
    """Return int64 (N, 2) level-0 corners of grid tiles with tissue: Otsu's threshold on saturation."""
    width, height = slide.dimensions
    shrink = THUMBNAIL_UM_PER_PX / mpp
    thumbnail = np.asarray(slide.get_thumbnail((round(width / shrink), round(height / shrink))).convert("RGB"))
    saturation = cv2.medianBlur(cv2.cvtColor(thumbnail, cv2.COLOR_RGB2HSV)[..., 1], 7)
    _, mask = cv2.threshold(saturation, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    side = TILE_PX * MPP / mpp
    columns, rows = int(width / side), int(height / side)
    covered = (round(columns * side * mask.shape[1] / width), round(rows * side * mask.shape[0] / height))
    inside = mask[: covered[1], : covered[0]].astype(np.float32)
    share = cv2.resize(inside, (columns, rows), interpolation=cv2.INTER_AREA)
    row, column = np.nonzero(share >= MIN_TISSUE)
    return np.rint(np.stack([column, row], axis=1) * side).astype(np.int64)


def batches(tiles: Tiles, job: Job, readers: str) -> Iterator[torch.Tensor]:
    """Yield (N, 3, h, w) in order, read ahead by forked workers or by threads, two batches for each."""
    if readers == "forks":
        yield from DataLoader(tiles, batch_size=job.batch, num_workers=job.workers)
        return
    starts = iter(range(0, len(tiles), job.batch))
    with ThreadPoolExecutor(job.workers) as pool:
        ahead: deque[list[Future[torch.Tensor]]] = deque()

        def submit() -> None:
            if (start := next(starts, None)) is not None:
                ahead.append(
                    [pool.submit(tiles.__getitem__, i) for i in range(start, min(start + job.batch, len(tiles)))]
                )

        for _ in range(2 * job.workers):
            submit()
        while ahead:
            pixels = torch.stack([tile.result() for tile in ahead.popleft()])
            submit()
            yield pixels


@torch.inference_mode()
def main() -> None:
    """Extract all slides."""
    arguments = parser(__doc__)
    arguments.add_argument("--readers", choices=("forks", "threads"), default="forks")
    given = arguments.parse_args()
    job = job_of(given)
    network, transform = TimedNetwork(job), transform_of(job)
    features = []
    for path in job.slides:
        tiles = Tiles(path, transform)
        found = torch.cat([network(pixels) for pixels in batches(tiles, job, given.readers)]).numpy()
        with h5py.File(job.out / f"{path.stem}.h5", "w") as file:
            file["features"], file["coords"] = found, tiles.corners
        features.append(found)
    finish(job, network, version=f"OpenSlide {openslide.__library_version__}", features=features)


if __name__ == "__main__":
    main()
