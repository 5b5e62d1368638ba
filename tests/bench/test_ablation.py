"""The ablation's bookkeeping; its runs are real and take long."""

import argparse
import importlib.util
import json
from pathlib import Path

import pytest

from hcmi.modeling_hcmi import LEVELS, HCMIConfig

SCRIPT = Path(__file__).parents[2] / "bench" / "ablation.py"


@pytest.fixture(scope="module")
def ablation():
    specification = importlib.util.spec_from_file_location("ablation", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def result(recall: float) -> dict:
    figures = {"R@1": recall, "R@5": recall + 10, "MdR": 2.0}
    return {
        "levels": {"combined": {"text_to_video": figures, "video_to_text_group": figures}},
        "moments": {"videos_with_several_events": {"predicted": {"mIoU": recall / 2}}},
        "training": {"epochs": 4, "seconds": 60.0},
    }


def test_every_variant_is_a_possible_configuration(ablation):
    for name, options in ablation.VARIANTS.items():
        overrides = json.loads(options["config_overrides"])
        config = HCMIConfig(**overrides)
        trained = [level for level in LEVELS if config.loss_weights[level] > 0]
        assert trained == [level for level in LEVELS if config.inference_weights[level] > 0], name
    weights = [json.loads(options["config_overrides"])["loss_weights"] for options in ablation.VARIANTS.values()]
    assert [sum(own.values()) for own in weights] == [1, 1, 1, 1, 3, 3, 3]


def test_mean_and_deviation_over_seeds(ablation):
    row = ablation.row("all three levels", [result(40.0), result(50.0), result(60.0)])
    assert row["text_to_video R@1"] == {"mean": 50.0, "deviation": 10.0}
    assert row["moment IoU"] == {"mean": 25.0, "deviation": 5.0}
    table = ablation.markdown([row])
    assert "| all three levels | 50.0 ± 10.0 | 60.0 ± 10.0 | 50.0 ± 10.0 | 25.0 ± 5.0 |" in table
    assert "3 seeds, 4 epochs" in table


def test_a_finished_run_is_not_repeated(ablation, tmp_path, monkeypatch):
    name = next(iter(ablation.VARIANTS))
    folder = tmp_path / "0-seed-7"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result(33.0)))
    monkeypatch.setattr(ablation.subprocess, "run", lambda *a, **k: pytest.fail("a finished run was started again"))
    arguments = argparse.Namespace(output=tmp_path, epochs=None, data=None, threads=1)
    assert ablation.train(name, 7, arguments)["levels"]["combined"]["text_to_video"]["R@1"] == 33.0
