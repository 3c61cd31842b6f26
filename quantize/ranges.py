"""Where the range of an activation ends.

A few faces drive some activations twenty times as far as the rest do. Ranges that hold them leave
no resolution for everybody else, and this net then loses several points. So a range ends at a
quantile of the rows' own extremes: it holds all that most rows have, and clips the rest.
"""

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]

EVERYTHING: Range = (-np.inf, np.inf)
LEAST_WIDTH = 1e-3
"""A range no wider than this has no values to tell apart."""


def row_extremes(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Least and greatest value of each row of `N×…`: `2×N`."""
    rows = values.reshape(len(values), -1)
    return np.stack([rows.min(axis=1), rows.max(axis=1)])


def row_range(extremes: NDArray[np.float32], quantile: float, limits: Range = EVERYTHING) -> Range:
    """The range for rows of these extremes (`2×N`), zero always within and never beyond `limits`.

    `quantile` of the rows end within it on either side.
    """
    low = max(float(np.quantile(extremes[0], 1 - quantile)), limits[0])
    high = min(float(np.quantile(extremes[1], quantile)), limits[1])
    return min(low, 0.0), max(high, LEAST_WIDTH)
