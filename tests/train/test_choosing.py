from types import SimpleNamespace

import pytest
from tiny_hcmi import tiny_model
from training_runs import differing, weights

from hcmi.train.choosing import ModelChoice
from hcmi.train.resuming import Progress


@pytest.fixture
def offer(processor, tmp_path):
    """Recall of each epoch's model to the choice among them, in a folder."""

    def make(recalls, progress=None, main=True):
        progress = progress or Progress()
        accelerator = SimpleNamespace(is_main_process=main)
        choice = ModelChoice(tmp_path / "model", processor, accelerator, progress)
        for recall in recalls:
            choice.offer(tiny_model(seed=progress.epoch), recall)
            progress.epoch += 1
        return choice

    return make


@pytest.mark.parametrize(
    ("recalls", "chosen"), [([10.0, 30.0, 20.0], 2), ([20.0, 20.0], 1), ([0.0, 0.0, 5.0], 3), ([0.0], 1)]
)
def test_the_best_is_kept_and_of_equal_ones_the_first(offer, tmp_path, recalls, chosen):
    choice = offer(recalls)
    assert not differing(weights(tmp_path / "model"), tiny_model(seed=chosen - 1).state_dict())
    assert choice.summary() == {
        "chosen_epoch": chosen,
        "chosen_by": "validation text-to-video R@1 of the combined levels",
        "validation_recall_at_1": max(recalls),
    }


def test_without_validation_the_last_is_kept(offer, tmp_path):
    choice = offer([None, None])
    assert not differing(weights(tmp_path / "model"), tiny_model(seed=1).state_dict())
    assert choice.summary() == {"chosen_epoch": 2, "chosen_by": "fixed beforehand: the last"}


def test_what_was_best_before_is_known_from_the_progress(offer, tmp_path):
    choice = offer([30.0], Progress(epoch=1, best_recall=40.0, kept_epoch=1))
    assert not (tmp_path / "model").exists()
    assert choice.summary()["chosen_epoch"] == 1


def test_other_processes_know_and_do_not_write(offer, tmp_path):
    assert offer([10.0, 20.0], main=False).summary()["chosen_epoch"] == 2
    assert not (tmp_path / "model").exists()
