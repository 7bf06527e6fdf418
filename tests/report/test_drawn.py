"""The points of figures that say nothing of their data, whatever they are made of."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from keyseg.report.figures import drawn


def test_points_of_lines_markers_and_bars_and_no_stumbling_over_the_rest() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.plot([1, 2], [3, 4], label="curve")
    left.scatter([5, 6], [7, 8], label="dots")
    left.bar([0], [9], width=1, label="bar")
    left.set(title="t", xlabel="x", ylabel="y")
    grid = np.arange(9.0).reshape(3, 3)
    right.contourf(grid)
    right.pcolormesh(grid)
    right.imshow(grid)
    right.fill_between([0, 1], [0, 1])
    right.vlines([1], 0, 1)
    right.errorbar([1, 2], [1, 2], yerr=1)
    right.add_patch(Ellipse((0, 0), 1, 1))
    right.text(0, 0, "word")
    found = drawn.points(figure)
    own = found[found["panel"] == "t"].set_index("series")
    assert own.loc["curve", ["x", "y"]].to_numpy(float).tolist() == [[1, 3], [2, 4]]
    assert own.loc["dots", ["x", "y"]].to_numpy(float).tolist() == [[5, 7], [6, 8]]
    assert own.loc[own.index.str.startswith("bar"), ["x", "y"]].to_numpy(float).tolist() == [
        [0.5, 9]
    ]
    assert set(own["x_label"]) == {"x"}
