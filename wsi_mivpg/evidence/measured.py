"""What was measured of a map's faithfulness, and the figures that sum it up.

Arrays alone: who reads stored curves, as the viewer does, loads neither torch nor a model.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Curve = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """Log-likelihoods of one target, natural logarithm, at F fractions of the tiles.

    Attributes:
        fractions: (F,), shares of the tiles that are left out in deletion, or alone kept in insertion.
        whole: with all tiles.
        deletion, insertion: (F,), in the map's order.
        random_deletion, random_insertion: (K, F), in K random orders.
        feature_norm_deletion, feature_norm_insertion: (F,), the tiles with the longest features first.
        uniform_deletion, uniform_insertion: (F,), tiles spread evenly over the slides first.
    """

    fractions: Curve
    whole: float
    deletion: Curve
    insertion: Curve
    random_deletion: Curve
    random_insertion: Curve
    feature_norm_deletion: Curve
    feature_norm_insertion: Curve
    uniform_deletion: Curve
    uniform_insertion: Curve

    def summary(self) -> dict[str, Any]:
        """Return the fields of `reports.report.Faithfulness`: areas as means over the fractions, in nats.

        The intervals say where the difference to one more random order would lie in 95 of 100 cases (Student's t, K - 1
        degrees of freedom, times ``sqrt(1 + 1/K)``): a map counts as better only where a random one rarely would be.
        An interval of the *mean* of the random orders would call every fourth map of pure noise better.
        """
        deletion = self.random_deletion.mean(axis=1) - self.deletion.mean()
        insertion = self.insertion.mean() - self.random_insertion.mean(axis=1)
        return {
            "deletion": float(deletion.mean()),
            "deletion_interval": _interval(deletion),
            "insertion": float(insertion.mean()),
            "insertion_interval": _interval(insertion),
            "deletion_over_feature_norm": float(self.feature_norm_deletion.mean() - self.deletion.mean()),
            "insertion_over_feature_norm": float(self.insertion.mean() - self.feature_norm_insertion.mean()),
            "deletion_over_uniform": float(self.uniform_deletion.mean() - self.deletion.mean()),
            "insertion_over_uniform": float(self.insertion.mean() - self.uniform_insertion.mean()),
            "fractions": tuple(float(fraction) for fraction in self.fractions),
            "random_orders": len(self.random_deletion),
        }


def _interval(differences: Curve) -> tuple[float, float]:
    count = len(differences)
    half = stdtrit(count - 1, 0.975) * differences.std(ddof=1) * (1 + 1 / count) ** 0.5
    return float(differences.mean() - half), float(differences.mean() + half)
