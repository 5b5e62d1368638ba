import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from hcmi.train.recall_curves import draw_recall_curves

K = [1, 5, 10, 100]


def curve(offset):
    return {"K": K, "text_to_video": [10.0 + offset, 40, 60, 100], "video_to_text_group": [20.0 + offset, 50, 70, 99]}


@pytest.fixture
def drawn(monkeypatch):
    """What is plotted: lines as (title of the axes, label): y; bands as title: (lower, upper)."""
    lines, bands = [], []
    plot, fill = Axes.plot, Axes.fill_between

    def record_line(self, x, y, **options):
        lines.append((self, options.get("label"), list(y)))
        return plot(self, x, y, **options)

    def record_band(self, x, lower, upper, **options):
        bands.append((self, list(lower), list(upper)))
        return fill(self, x, lower, upper, **options)

    monkeypatch.setattr(Axes, "plot", record_line)
    monkeypatch.setattr(Axes, "fill_between", record_band)
    return lines, bands


def test_a_picture_with_a_line_a_model_their_mean_and_its_band(tmp_path, drawn):
    draw_recall_curves({"seed-0": curve(0), "seed-1": curve(4)}, tmp_path / "curves.png", "a title")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG" and image.width > 1000
        assert np.asarray(image.convert("L")).std() > 5
    lines = {(axes.get_title().strip(), label): y for axes, label, y in drawn[0]}
    for title, first in (("text → video", 10.0), ("video → text (group protocol)", 20.0)):
        assert (lines[title, "seed-0"][0], lines[title, "seed-1"][0]) == (first, first + 4)
        assert lines[title, "mean"][0] == first + 2
    (_, lower, upper), _ = drawn[1]
    assert (lower[0], upper[0]) == pytest.approx((12 - 8**0.5, 12 + 8**0.5))
    assert (lower[1:], upper[1:]) == ([40, 60, 100], [40, 60, 100])


def test_the_band_stays_within_percent(tmp_path, drawn):
    curves = {name: curve(0) | {"text_to_video": [low, 99, 99, 100]} for name, low in (("a", 0.0), ("b", 1.0))}
    curves["b"]["text_to_video"] = [1.0, 100, 100, 100]
    draw_recall_curves(curves, tmp_path / "curves.png", "a title")
    for _, lower, upper in drawn[1]:
        assert min(lower) >= 0 and max(upper) <= 100


@pytest.mark.filterwarnings("error")
def test_many_models_share_one_entry_of_the_legend(tmp_path, drawn):
    draw_recall_curves({f"seed-{n}": curve(n) for n in range(12)}, tmp_path / "curves.png", "a title")
    labels = [label for _, label, _ in drawn[0] if label and not label.startswith("_")]
    assert labels == ["12 models", "mean"] * 2
