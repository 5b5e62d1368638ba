"""The encoders as graphs: `torch.export`, and ONNX files in onnxruntime."""

import pytest
import torch
from tiny_hcmi import TEXT_CONFIG, VISION_CONFIG, random_texts, random_videos, tiny_model

from hcmi.modeling_hcmi.export_hcmi import (
    HCMITextEncoder,
    HCMIVideoEncoder,
    export_encoder,
    export_onnx,
    onnx_difference,
)

# One layer each: the time goes by the number of operations.
SHALLOW = {
    "text_config": TEXT_CONFIG | {"num_hidden_layers": 1},
    "vision_config": VISION_CONFIG | {"num_hidden_layers": 1},
}


def videos(count: int, frames: int) -> dict[str, torch.Tensor]:
    mask = torch.arange(frames) < torch.arange(frames, frames - count, -1).clamp(min=1)[:, None]
    return {"pixel_values_videos": random_videos(count, frames), "video_mask": mask}


def texts(*lengths: int) -> dict[str, torch.Tensor]:
    return random_texts(lengths)


def assert_same(outputs, encoder, inputs) -> None:
    with torch.no_grad():
        wanted = encoder(**inputs)
    assert len(outputs) == len(wanted) == len(encoder.outputs)
    for name, given, tensor in zip(encoder.outputs, outputs, wanted, strict=True):
        torch.testing.assert_close(torch.as_tensor(given), tensor, atol=1e-4, rtol=1e-4, msg=name)


@torch.no_grad()
def test_torch_export_takes_any_batch_of_videos():
    encoder = HCMIVideoEncoder(tiny_model(**SHALLOW))
    program = export_encoder(encoder).module()
    for count, frames in ((3, 7), (1, 12), (5, 5)):
        assert_same(program(**videos(count, frames)), encoder, videos(count, frames))


@torch.no_grad()
def test_torch_export_takes_any_batch_of_texts():
    encoder = HCMITextEncoder(tiny_model(**SHALLOW))
    program = export_encoder(encoder).module()
    for lengths in ((6, 9, 4), (24,), (3, 5)):
        assert_same(program(**texts(*lengths)), encoder, texts(*lengths))


ENCODERS = {
    "frames": lambda: HCMIVideoEncoder(tiny_model(**SHALLOW)),
    "tokens": lambda: HCMITextEncoder(tiny_model(**SHALLOW)),
    # Its texts are padded inside the graph.
    "tokens of siglip": lambda: HCMITextEncoder(tiny_model(backbone="siglip", projection_dim=32, **SHALLOW)),
}
INPUTS = {
    "frames": [videos(3, 8), videos(1, 12), videos(2, 5), videos(2, 1)],
    "tokens": [texts(6, 9, 4), texts(24), texts(2, 3)],
    "tokens of siglip": [texts(6, 9, 4), texts(24), texts(5)],
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_onnx_files_give_the_same_features(tmp_path, kind):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the optional packages onnx, onnxscript, onnxruntime")
    pytest.importorskip("onnxscript", reason="needs the optional packages onnx, onnxscript, onnxruntime")
    encoder, path = ENCODERS[kind](), tmp_path / "encoder.onnx"
    export_onnx(encoder, path)
    assert not (tmp_path / "encoder.onnx.data").exists()
    assert onnx_difference(encoder, path) < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {given.name: tuple(given.shape[:2]) for given in session.get_inputs()} == encoder.inputs
    assert [given.name for given in session.get_outputs()] == list(encoder.outputs)
    for inputs in INPUTS[kind]:
        outputs = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        assert_same(outputs, encoder, inputs)
