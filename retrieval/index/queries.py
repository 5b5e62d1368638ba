"""What an index is searched for: a text, or a video that stands in the text's place."""

from typing import Any

import torch

from hcmi.modeling_hcmi import HCMITextFeatures, HCMIVideoFeatures


@torch.no_grad()
def encode_text(model: Any, processor: Any, text: str) -> HCMITextFeatures:
    """
    The features of one text, on the CPU.

    Raises:
        ValueError: it is no text, or an empty one.
    """
    if not isinstance(text, str):
        raise ValueError(f"A query has to be a text, got {type(text).__name__}.")
    if not text.strip():
        raise ValueError("The query is empty: say in words what the video shows.")
    tokens = processor(text=[text], return_tensors="pt")
    return model.get_text_features(*(tokens[key].to(model.device) for key in ("input_ids", "attention_mask"))).to("cpu")


@torch.no_grad()
def encode_example(model: Any, processor: Any, video: Any) -> HCMITextFeatures:
    """
    A video's features in the place of a text's, on the CPU: its frames are compared with other videos' frames, its
    clips with their clips, the video with the videos [C].

    Args:
        video: anything that the processor takes as a video.

    Raises:
        VideoReadError: it cannot be read.
    """
    inputs = processor(videos=[video], uint8=True, return_tensors="pt")
    frames, mask = (inputs[key].to(model.device) for key in ("pixel_values_videos", "video_mask"))
    return as_text(model.get_video_features(frames, mask).to("cpu"))


def as_text(video: HCMIVideoFeatures) -> HCMITextFeatures:
    """Features of `V` videos as those of `V` texts: frames as words, clips as phrases."""
    return HCMITextFeatures(
        pooler_output=video.pooler_output,
        words=video.frames,
        phrases=video.clips,
        word_mask=video.frame_mask,
        phrase_mask=video.clip_mask,
        word_weights=video.frame_weights,
        phrase_weights=video.clip_weights,
        phrase_word_weights=video.clip_frame_weights,
    )
