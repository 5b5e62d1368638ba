from types import SimpleNamespace

import pytest
import torch
from tiny_hcmi import tiny_model
from training_runs import differing

from hcmi.train import run_evaluation
from hcmi.train.data.benchmark_info import benchmark_info
from hcmi.train.results import complete_result
from hcmi.train.run_evaluation import RunEvaluation

MEASURED = {"counts": {"videos": 8, "texts": 24}}
ACCELERATOR = SimpleNamespace(device=torch.device("cpu"))


@pytest.fixture
def calls(monkeypatch):
    """What `evaluate` is asked: (model, processor, data set, options)."""
    seen = []

    def evaluate(model, processor, dataset, **options):
        seen.append((model, processor, dataset, options))
        return MEASURED

    monkeypatch.setattr(run_evaluation, "evaluate", evaluate)
    return seen


def evaluation(arguments, validation=None, testing=None):
    data = SimpleNamespace(validation=validation, testing=testing, validation_frames=lambda processor: "kept frames")
    return RunEvaluation(arguments, ACCELERATOR, data, "the processor")


def test_the_kept_model_is_tested_once_from_the_files(arguments_for, calls, videos, tmp_path):
    model = tiny_model(seed=4)
    model.save_pretrained(tmp_path)
    arguments = arguments_for(tmp_path, seed=3, reader_timeout=9.0, evaluation_batch_size=5)
    result = evaluation(arguments, testing=videos).test(tmp_path, 2, {"epochs": 5})
    ((measured, processor, dataset, options),) = calls
    assert not differing(measured.state_dict(), model.state_dict())
    assert processor == "the processor" and dataset is videos
    assert options == {
        "batch_size": 5, "accelerator": ACCELERATOR, "num_frames": 4, "num_workers": 2, "reader_timeout": 9.0
    }  # fmt: skip
    expected = complete_result(
        MEASURED, model=str(tmp_path), info=benchmark_info(videos), seed=3, device="cpu", dtype=torch.float32
    )
    assert result.pop("training") == {"epochs": 5, "parameters": sum(p.numel() for p in model.parameters())}
    assert result | {"finished": ""} == expected | {"finished": ""}


def test_the_model_of_an_epoch_is_validated_on_the_frames_that_are_kept(arguments_for, calls, tmp_path):
    assert evaluation(arguments_for(tmp_path), validation="the split").validate("the model") is MEASURED
    ((model, processor, dataset, options),) = calls
    assert (model, processor, dataset) == ("the model", "the processor", "the split")
    assert options["frames_for"] == "kept frames" and "num_frames" not in options


def test_without_a_validation_split_nothing_is_measured(arguments_for, calls, tmp_path):
    assert evaluation(arguments_for(tmp_path)).validate("the model") is None and not calls
