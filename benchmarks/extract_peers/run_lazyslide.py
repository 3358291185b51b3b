"""LazySlide: its tissue, its tiles, its `feature_extraction`, with the shared network.

Its autocast is torch's; here it sits inside the network, which is the same.
"""

import lazyslide as zs
import numpy as np
import torch
from wsidata import open_wsi

from extract_peers.shared import MPP, TILE_PX, TimedNetwork, finish, job_of, parser, transform_of


def main() -> None:
    """Extract all slides."""
    job = job_of(parser(__doc__).parse_args())
    network, transform = TimedNetwork(job), transform_of(job)
    features = []
    for path in job.slides:
        wsi = open_wsi(path)
        zs.pp.find_tissues(wsi)
        zs.pp.tile_tissues(wsi, TILE_PX, mpp=MPP)
        found = zs.tl.feature_extraction(
            wsi,
            network,
            model_name="shared",
            transform=transform,
            device="cpu",
            amp=False,
            batch_size=job.batch,
            num_workers=job.workers,
            pbar=False,
            return_features=True,
        )
        np.save(job.out / f"{path.stem}.npy", found)
        features.append(np.asarray(found))
    finish(job, network, version=zs.__version__, features=features, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
