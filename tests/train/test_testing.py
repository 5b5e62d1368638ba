from types import SimpleNamespace

import torch
from tiny_hcmi import tiny_model
from training_runs import differing

from hcmi.train.data.benchmark_info import benchmark_info
from hcmi.train.results import complete_result
from hcmi.train.testing import final_result


def test_the_model_in_the_folder_is_measured_once_on_the_data_set(videos, tmp_path):
    model = tiny_model(seed=4)
    model.save_pretrained(tmp_path)
    calls = []
    counts = {"counts": {"videos": 8, "texts": 24}}

    def measure(model, dataset):
        calls.append((model.state_dict(), dataset))
        return counts

    accelerator = SimpleNamespace(device=torch.device("cpu"))
    result = final_result(tmp_path, videos, measure, accelerator, 3, {"epochs": 5})
    ((measured, dataset),) = calls
    assert not differing(measured, model.state_dict()) and dataset is videos
    options = {"model": str(tmp_path), "info": benchmark_info(videos), "seed": 3}
    expected = complete_result(counts, **options, device="cpu", dtype=torch.float32)
    assert result.pop("training") == {"epochs": 5, "parameters": sum(p.numel() for p in model.parameters())}
    assert result | {"finished": ""} == expected | {"finished": ""}
