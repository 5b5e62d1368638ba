import sys

import pytest
from saved_hcmi import save_tiny_hcmi

from hcmi.cli import main
from hcmi.commands import export
from hcmi.modeling_hcmi import export_hcmi
from hcmi.processing import HCMIProcessor

needs_onnx = pytest.mark.skipif(
    any(export.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the optional packages onnx, onnxscript, onnxruntime",
)


@pytest.fixture
def model_folder(tmp_path) -> str:
    return save_tiny_hcmi(tmp_path / "model")


@pytest.fixture
def without_tracing(monkeypatch):
    """Files at once; what is in them is tested with the exporter itself."""
    monkeypatch.setattr(export_hcmi, "export_onnx", lambda encoder, path: path.write_bytes(b"graph"))
    monkeypatch.setattr(export_hcmi, "onnx_difference", lambda encoder, path: 1e-6)


@needs_onnx
def test_both_files_and_the_processor_are_written(model_folder, without_tracing, tmp_path, capsys):
    assert main(["export", model_folder, str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "pixel_values_videos (batch, frames, …), video_mask (batch, frames, …); within 1e-06" in told
    for name in ("video_encoder.onnx", "text_encoder.onnx"):
        assert (tmp_path / "out" / name).read_bytes() == b"graph"
        assert str(tmp_path / "out" / name) in told
    assert HCMIProcessor.from_pretrained(tmp_path / "out").frames_per_video == 6


@needs_onnx
@pytest.mark.parametrize("difference", [0.01, float("nan")])
def test_a_file_that_differs_is_not_written(model_folder, without_tracing, monkeypatch, tmp_path, capsys, difference):
    monkeypatch.setattr(export_hcmi, "onnx_difference", lambda encoder, path: difference)
    assert main(["export", model_folder, str(tmp_path / "out")]) == 1
    assert "video_encoder: onnxruntime differs" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_missing_package_is_told_before_anything_is_loaded(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "hcmi.train.saved_models", None)
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert main(["export", "nobody/nothing", str(tmp_path / "out")]) == 1
    assert 'onnxruntime is not installed: pip install "hcmi[onnx]"' in capsys.readouterr().err


def test_a_folder_in_use_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["export", "nobody/nothing", str(tmp_path)]) == 1
    assert f"{tmp_path} is already there and not empty" in capsys.readouterr().err
