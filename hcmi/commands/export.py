"""Write a model's two encoders as ONNX files: frames to features, and tokens to features.

  hcmi export runs/mine/model my_onnx

OUT gets video_encoder.onnx, text_encoder.onnx and the processor's files. Each file is run in onnxruntime and compared
with the model before OUT appears. Needs the packages onnx, onnxscript and onnxruntime: pip install "hcmi[onnx]".
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from .new_folder import new_folder, refuse_used

TOLERANCE = 1e-4
"""The largest difference between a file's features and the model's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hcmi export`."""
    parser.add_argument("model", metavar="MODEL", help="a model's folder or its name on the Hub")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write; new, or empty")


def run(arguments: argparse.Namespace) -> int:
    """
    Runs `hcmi export`.

    Raises:
        ValueError: OUT is in use, a package is missing, or a file does not give the model's features.
        OSError: there is no such model.
    """
    refuse_used(arguments.out)
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise ValueError(f'{", ".join(missing)} is not installed: pip install "hcmi[onnx]"')
    import torch

    from hcmi.modeling_hcmi.export_hcmi import encoders, export_onnx, onnx_difference
    from hcmi.processing import HCMIProcessor
    from hcmi.train.saved_models import load_whole_model

    processor = HCMIProcessor.from_pretrained(arguments.model)
    model = load_whole_model(arguments.model, torch.device("cpu"), "float32")
    with new_folder(arguments.out) as folder:
        processor.save_pretrained(folder)
        for name, encoder in encoders(model).items():
            print(f"hcmi export: {name}, which takes minutes …", file=sys.stderr)
            file = folder / f"{name}.onnx"
            export_onnx(encoder, file)
            difference = onnx_difference(encoder, file)
            if not difference <= TOLERANCE:
                raise ValueError(f"{name}: onnxruntime differs from the model by {difference:.1g}, nothing is written")
            inputs = ", ".join(f"{given} ({', '.join(axes)}, …)" for given, axes in encoder.inputs.items())
            print(f"{arguments.out / file.name}: {inputs}; within {difference:.1g} of the model")
    return 0
