import pytest
import torch
from saved_hcmi import save_tiny_hcmi

from hcmi.train.saved_models import find_device, load_whole_model, training_seed


def test_a_model_is_loaded_whole_onto_its_device(tmp_path):
    model = load_whole_model(save_tiny_hcmi(tmp_path), torch.device("cpu"), "bfloat16")
    assert model.dtype == torch.bfloat16 and not model.training


def test_a_clip_checkpoint_is_refused(clip_folder):
    with pytest.raises(ValueError, match="from_clip_pretrained"):
        load_whole_model(str(clip_folder), torch.device("cpu"))


def test_devices_by_name():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="toaster"):
        find_device("toaster")


@pytest.mark.parametrize(
    ("noted", "seed"),
    [
        ("seed: 7\nepochs: 2\n", 7),
        ("epochs: 2\n", None),
        ("text", None),
        ("seed: x\n", None),
        ("[", None),
        (None, None),
    ],
)
def test_the_seed_is_what_the_training_run_noted(tmp_path, noted, seed):
    (tmp_path / "model").mkdir()
    if noted is not None:
        (tmp_path / "arguments.yaml").write_text(noted)
    assert training_seed(str(tmp_path / "model")) == seed


def test_a_model_of_the_hub_has_no_known_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arguments.yaml").write_text("seed: 7\n")
    assert training_seed("someone/model") is None and training_seed("model") is None
