"""Gradients by central finite differences, one number at a time."""

import numpy as np


def finite_differences(function, point, step=1e-6):
    """df/dx_i = (f(x + h e_i) - f(x - h e_i)) / 2h, in float64.

    Args:
      function: takes what `point` is (an array or a dict of arrays) and returns one number.
      point: an array, or a dict of arrays; left as it is.
      step: h.

    Returns:
      An array, or a dict of arrays, of the shapes of `point`.
    """
    if isinstance(point, dict):
        return {
            name: finite_differences(lambda value, name=name: function({**point, name: value}), array, step)
            for name, array in point.items()
        }
    point = np.array(point, np.float64)
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        above, below = point.copy(), point.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = (float(function(above)) - float(function(below))) / (2 * step)
    return gradient
