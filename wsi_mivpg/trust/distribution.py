"""How far a case lies from the training cases: pooled features, and a Ledoit-Wolf covariance kept as a few directions.

It knows instances and numbers, no model and no report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

from wsi_mivpg.captioner import CaseBags
from wsi_mivpg.errors import CohortError
from wsi_mivpg.mivpg.chunks import as_tensor

DIRECTIONS = 64
FEWEST = 8
"""Training cases below which no distance is computed."""
_CHUNK = 65_536
_FLOOR = 1e-4


@dataclass(frozen=True, eq=False)
class TrainingCases:
    """What pooled training cases look like.

    The covariance of the standardised values is that of Ledoit and Wolf. Its largest eigenvalues are kept with their
    directions, the others as their mean, so that a model of 1,280 features needs kilobytes rather than megabytes.

    Attributes:
        mean, scale: float32 (P,): of each pooled value.
        directions: float32 (k, P), orthonormal, of the largest variances.
        variances: float32 (k,): along them.
        other_variance: along every other direction.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    directions: NDArray[np.float32]
    variances: NDArray[np.float32]
    other_variance: float

    def mahalanobis(self, pooled: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distance of each pooled case, float64 (B,), per square root of the number of values: about 1."""
        values = (pooled.astype(np.float64) - self.mean) / self.scale
        along = values @ self.directions.T.astype(np.float64)
        rest = np.maximum((values**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        squares = (along**2 / self.variances).sum(axis=1) + rest / self.other_variance
        return np.asarray(np.sqrt(squares / values.shape[1]), np.float64)

    def along(self, pooled: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return each pooled case's place along the kept directions, in standard deviations, float64 (B, k)."""
        values = (pooled.astype(np.float64) - self.mean) / self.scale
        scores = values @ self.directions.T.astype(np.float64) / np.sqrt(self.variances)
        return np.asarray(scores, np.float64)


def pooled(case: CaseBags) -> NDArray[np.float32]:
    """Return a case's mean and standard deviation of each feature, and its number of instances (log), (2 D + 1,)."""
    total: NDArray[np.float64] | None = None
    squares: NDArray[np.float64] | None = None
    for start in range(0, len(case), _CHUNK):
        part = as_tensor(case.instances[start : start + _CHUNK]).double().cpu().numpy()
        total = part.sum(axis=0) + (0 if total is None else total)
        squares = (part**2).sum(axis=0) + (0 if squares is None else squares)
    assert total is not None
    assert squares is not None
    mean = total / len(case)
    spread = np.sqrt(np.maximum(squares / len(case) - mean**2, 0))
    return np.concatenate([mean, spread, [log(len(case))]]).astype(np.float32)


def fit_training_cases(rows: Sequence[NDArray[np.float32]]) -> TrainingCases:
    """Fit the distribution of pooled training cases.

    Raises:
        CohortError: there are too few.
    """
    if len(rows) < FEWEST:
        raise CohortError(
            f"{len(rows)} training cases are too few to tell what is foreign; give the manifest that the model was "
            f"trained on, with at least {FEWEST} cases of split 'train' and their bags"
        )
    values = np.stack(rows).astype(np.float64)
    mean = values.mean(axis=0)
    # A feature that hardly varies would make every other case foreign.
    spread = values.std(axis=0)
    scale = np.maximum(spread, max(_FLOOR, 0.05 * float(np.median(spread))))
    values = (values - mean) / scale
    n, size = values.shape
    _, singular, directions = np.linalg.svd(values, full_matrices=False)
    eigenvalues = singular**2 / n
    average = float(eigenvalues.sum() / size)
    shrinkage = ledoit_wolf_shrinkage(values)
    shrunk = (1 - shrinkage) * eigenvalues + shrinkage * average
    kept = min(DIRECTIONS, ceil(n / 2), len(shrunk))
    n_others = size - kept
    left = float(shrunk[kept:].sum() + (size - len(shrunk)) * shrinkage * average)
    other = left / n_others if n_others else average
    single = [array.astype(np.float32) for array in (mean, scale, directions[:kept], shrunk[:kept])]
    return TrainingCases(single[0], single[1], single[2], single[3], max(other, 1e-12))


def ledoit_wolf_shrinkage(values: NDArray[np.float64]) -> float:
    """Return how much of the covariance of centred values (n, P) to replace by its mean variance (Ledoit, Wolf 2004).

    Computed from the (n, n) products, since there are more values than cases.
    """
    n, size = values.shape
    gram = values @ values.T
    trace = float(np.trace(gram)) / n
    squared = float((gram**2).sum()) / n**2  # of all entries of the covariance
    away = squared - trace**2 / size
    noise = (float((np.diag(gram) ** 2).sum()) / n - squared) / n
    return float(np.clip(noise / away, 0, 1)) if away > 0 else 1.0
