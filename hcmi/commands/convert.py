"""Make an HCMI of a pretrained dual encoder. It retrieves at once, as that encoder does with the mean of a video's
frames, and can be trained further.

  hcmi convert --clip openai/clip-vit-base-patch32 my_model

Takes checkpoints of CLIP (also OpenCLIP's in CLIPModel format), MetaCLIP 2, SigLIP, and SigLIP 2 of a fixed resolution.
SigLIP's tokenizer needs two more packages: pip install "hcmi[siglip]".
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from .new_folder import new_folder, refuse_used


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hcmi convert`."""
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write; new, or empty")
    parser.add_argument(
        "--clip", required=True, metavar="NAME", help="the dual encoder: a name on the Hub, or a folder"
    )
    parser.add_argument("--revision", help="branch, tag or commit on the Hub (default: its main branch)")
    parser.add_argument(
        "--frames", type=int, default=12, metavar="N", help="frames taken of a video (default: %(default)s)"
    )
    parser.add_argument(
        "--max-frames",
        type=int,
        default=64,
        metavar="N",
        help="the most that the model can ever take, which cannot be changed later (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """
    Runs `hcmi convert`.

    Raises:
        ValueError: OUT is in use, or the checkpoint cannot be converted.
        OSError: there is no such checkpoint.
    """
    if not 1 <= arguments.frames <= arguments.max_frames:
        raise ValueError(f"--frames has to lie in 1..{arguments.max_frames} (--max-frames), got {arguments.frames}.")
    refuse_used(arguments.out)
    import torch

    from hcmi.conversion import convert_clip

    _tell(f"loading {arguments.clip}")
    torch.manual_seed(0)  # of the new layers: the same model whenever it is converted
    model, processor = convert_clip(
        arguments.clip,
        frames_per_video=arguments.frames,
        config_overrides={"max_frames": arguments.max_frames},
        revision=arguments.revision,
    )
    _tell("trying it on one frame")
    _try(model, processor)
    _tell(f"writing {arguments.out}")
    with new_folder(arguments.out) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    print(_report(model, arguments))
    return 0


def _tell(step: str) -> None:
    print(f"hcmi convert: {step} …", file=sys.stderr)


def _try(model: Any, processor: Any) -> None:
    """
    One black frame and a word from beginning to end.

    Raises:
        ValueError: the checkpoint's parts do not fit each other.
    """
    import torch

    inputs = processor(text=["video"], videos=[torch.zeros(1, 3, 32, 32, dtype=torch.uint8)], return_tensors="pt")
    try:
        with torch.inference_mode():
            text = model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
            video = model.get_video_features(inputs["pixel_values_videos"].to(model.dtype), inputs["video_mask"])
    except (ValueError, IndexError, RuntimeError) as error:
        raise ValueError(f"image processor, tokenizer and towers do not fit each other: {error}") from error
    if not model.score(text, video).combined.isfinite().all():
        raise ValueError("the model's similarities are not finite: the checkpoint's weights are damaged")


def _report(model: Any, arguments: argparse.Namespace) -> str:
    new = sum(parameter.numel() for name, parameter in model.named_parameters() if "_hierarchy." in name)
    taken = sum(parameter.numel() for parameter in model.parameters()) - new
    out = arguments.out
    return f"""model: {out} (backbone {model.config.backbone}, {taken:,} parameters taken over, {new:,} new)
Untrained, it compares a sentence with the mean of a video's frames. Next:
  hcmi find "what the video shows" --model {out} --videos my_videos/
  hcmi eval {out} --benchmark msrvtt --annotations lists/ --videos videos/
  hcmi train --model {out} --benchmark msrvtt --annotations lists/ --videos videos/ --output runs/mine"""
