import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
import torch
from huggingface_hub import metadata_load

from hcmi.train.metrics import DIRECTIONS, retrieval_metrics
from hcmi.train.post_processing import post_processed_metrics

FOLDER = Path(__file__).parents[2] / "metrics" / "text_video_retrieval"

scores = torch.rand(30, 8, generator=torch.Generator().manual_seed(0))
video_of_text = torch.arange(30) % 8


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    """Loaded as a user loads it; what `evaluate` writes goes to a temporary folder."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(home / "modules"))
        patch.setattr(sys, "path", [*sys.path])
        yield evaluate.load(str(FOLDER), cache_dir=str(home / "metrics"))


def assert_holds(result, summaries, prefix=""):
    for direction in set(DIRECTIONS) & set(summaries):
        for name, value in summaries[direction].items():
            name = f"{prefix}{direction}_{name}"
            found = [result[f"{name}_low"], result[f"{name}_high"]] if name.endswith("_95") else result[name]
            assert found == value, name


@pytest.mark.parametrize("convert", [torch.Tensor.tolist, torch.Tensor.numpy, lambda tensor: tensor])
def test_it_computes_what_the_functions_compute(metric, convert):
    result = metric.compute(predictions=convert(scores), references=convert(video_of_text))
    assert_holds(result, retrieval_metrics(scores, video_of_text))
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in result.values())


def test_batches_and_single_texts_add_up_to_the_whole(metric):
    expected = metric.compute(predictions=scores, references=video_of_text)
    for rows in torch.arange(30).split(7):
        metric.add_batch(predictions=scores[rows], references=video_of_text[rows])
    assert metric.compute() == expected
    for row, video in zip(scores.tolist(), video_of_text.tolist(), strict=True):
        metric.add(prediction=row, reference=video)
    assert metric.compute() == expected


def test_post_processing_stands_beside_the_plain_numbers(metric):
    names, bank = ["dsl", "qb_norm"], scores[:11]
    given = {"predictions": scores, "references": video_of_text, "recall_ks": [1, 3]}
    result = metric.compute(**given, post_processing=names, bank_scores=bank.tolist())
    processed = post_processed_metrics(scores, video_of_text, names, [bank], recall_ks=[1, 3])
    assert_holds(result, retrieval_metrics(scores, video_of_text, [1, 3]))
    assert_holds(result, processed["dsl"], "dsl_")
    assert_holds(result, processed["qb_norm"], "qb_norm_")
    assert (result["dsl_temperature"], result["qb_norm_temperature"]) == (100, 20)
    assert "text_to_video_R@3" in result and "text_to_video_R@5" not in result
    assert all(isinstance(value, int | float) for value in result.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"predictions": [[1.0, 2.0], [1.0]], "references": [0, 0]}, "rows have 1 to 2"),
        ({"predictions": [[1.0, 2.0]], "references": [2]}, r"0\.\.1"),
        ({"predictions": [[1.0, math.nan]], "references": [0]}, "NaN"),
        ({"predictions": [[1.0, 2.0]], "references": [0], "post_processing": ["qb_norm"]}, "holds no texts"),
        ({"predictions": [[1.0, 2.0]], "references": [0], "post_processing": "dsl"}, "list of any of"),
    ],
)
def test_what_does_not_fit_is_refused_and_spoils_nothing_after_it(metric, given, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(**given)
    result = metric.compute(predictions=scores, references=video_of_text)
    assert result["text_to_video_queries"] == 30


def test_it_loads_without_a_network_into_an_empty_home(tmp_path):
    program = "import evaluate, sys; print(evaluate.load(sys.argv[1]).compute(predictions=[[1, 0]], references=[0]))"
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_EVALUATE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(FOLDER)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "'text_to_video_R@1': 100.0" in done.stdout


def test_the_folder_is_a_space_that_shows_the_metric(monkeypatch, tmp_path):
    card = metadata_load(FOLDER / "README.md")
    assert (card["sdk"], card["app_file"]) == ("gradio", "app.py") and {"evaluate", "metric"} <= set(card["tags"])
    assert "hcmi" in (FOLDER / "requirements.txt").read_text().split()

    shown = []
    monkeypatch.setattr("evaluate.utils.launch_gradio_widget", shown.append)
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "metrics"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(FOLDER)
    runpy.run_path("app.py")
    assert [metric.name for metric in shown] == ["text_video_retrieval"]
