"""A baseline that sees only a slide's colours: mean and deviation of RGB, and logistic regression.

A finding that this predicts is in the stain, not in the tissue's pattern.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_mivpg.errors import TextsError


def colour_statistics(pixels: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return mean R, G, B and their deviations, float64 (6,), of uint8 (H, W, 3) pixels chosen by `where`.

    Nothing selected gives the colour of empty glass: 255, 255, 255, 0, 0, 0.
    """
    chosen = pixels.reshape(-1, 3) if where is None else pixels[where]
    if not len(chosen):
        return np.array([255.0, 255.0, 255.0, 0.0, 0.0, 0.0])
    return np.concatenate([chosen.mean(axis=0, dtype=np.float64), chosen.std(axis=0, dtype=np.float64)])


def colour_accuracy(
    train_colours: NDArray[np.floating],
    train_findings: list[str],
    test_colours: NDArray[np.floating],
    test_findings: list[str],
    *,
    seed: int = 0,
) -> float:
    """Return the share (0..1) of test findings that colour alone gets right.

    Args:
        train_colours: float (n, 6) from `colour_statistics`; `train_findings` has n entries.
        test_colours: float (m, 6); `test_findings` has m entries, m > 0.

    Raises:
        TextsError: scikit-learn is not installed, or a split has no cases.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise TextsError("the colour baseline needs scikit-learn; pip install 'wsi-mivpg[evaluate]'") from error
    if not train_findings or not test_findings:
        raise TextsError(f"the colour baseline got {len(train_findings)} training and {len(test_findings)} test cases")
    if len(set(train_findings)) == 1:
        return float(np.mean([finding == train_findings[0] for finding in test_findings]))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))
    model.fit(train_colours, train_findings)
    return float(model.score(test_colours, test_findings))
