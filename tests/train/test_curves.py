import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from hcmi.modeling_hcmi import LEVELS
from hcmi.train.curves import draw_curves

PARTS = (*LEVELS, "marginal")


def step(number, **parts):
    return {"step": number, "loss": 4.0, "mined_pairs": 2.0, "learning_rate": 1e-3} | parts


def epoch(number, value):
    return {"step": 10 * number, "recall_at_1": dict.fromkeys((*LEVELS, "combined"), value)}


STEPS = [step(10 * n, **{part: 4.0 / n + k for k, part in enumerate(PARTS)}) for n in range(1, 5)]
EPOCHS = [epoch(1, 20.0), epoch(2, 40.0)]


@pytest.fixture
def lines(monkeypatch):
    """What is plotted: (title of the axes, label or None, x, y)."""
    drawn = []
    real = Axes.plot

    def plot(self, x, y, **options):
        drawn.append((self, options.get("label"), list(x), list(y)))
        return real(self, x, y, **options)

    monkeypatch.setattr(Axes, "plot", plot)
    return drawn


def test_a_picture_with_every_curve(tmp_path, lines):
    draw_curves(STEPS, EPOCHS, tmp_path / "curves.png", "a title")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG" and image.width > 1000
        assert np.asarray(image.convert("L")).std() > 5
    drawn = {(axes.get_title(), label): (x, y) for axes, label, x, y in lines}
    for part in PARTS:
        name = part.replace("_", "-")
        assert drawn["loss", name] == ([10, 20, 30, 40], [record[part] for record in STEPS])
    for level in (*LEVELS, "combined"):
        assert drawn["validation R@1, text → video (%)", level.replace("_", "-")] == ([10, 20], [20.0, 40.0])
    assert drawn["mined positive pairs a step", None] == ([10, 20, 30, 40], [2.0] * 4)
    assert drawn["", None] == ([10, 20, 30, 40], [1e-3] * 4)


def test_parts_that_a_run_does_not_have_are_left_out(tmp_path, lines):
    steps = [step(10 * n, frame_word=3.0 / n) for n in range(1, 4)]
    draw_curves(steps, EPOCHS, tmp_path / "curves.png", "one level")
    assert [label for axes, label, *_ in lines if axes.get_title() == "loss"] == ["frame-word"]


@pytest.mark.filterwarnings("error")
def test_one_step_and_a_margin_that_is_kept_are_no_trouble(tmp_path):
    draw_curves([step(1, marginal=0.0, frame_word=2.0)], [epoch(1, 0.0)], tmp_path / "curves.png", "short")
    assert (tmp_path / "curves.png").is_file()
