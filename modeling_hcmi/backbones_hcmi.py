"""The dual encoders of transformers that HCMI is built around, and in what they differ."""

from dataclasses import dataclass
from typing import Any

import transformers
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

logger = logging.get_logger(__name__)

END_OF_TEXT, LAST_TOKEN = "end_of_text", "last_token"
"""Whose state a text tower's sentence feature is made of: the first end-of-text token's, or that of the last position
of a text that is padded to the tower's full length."""

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Backbone:
    """
    One kind of dual encoder.

    Attributes:
        prefix: what the names of its classes in transformers begin with.
        projected: whether `text_projection` and `visual_projection` lead from the towers to the joint space. Otherwise
            the towers' pooled features lie in it, and the text tower's `head` leads its tokens there.
        text_pooling: `END_OF_TEXT`, or `LAST_TOKEN` for a tower that was trained on padded texts without a mask.
        logit_bias: whether a learned bias is added to the logits, of which scale and bias are vectors of length 1.
        image_mean, image_std: its checkpoints' normalisation of pixels in 0..1.
    """

    prefix: str
    projected: bool = True
    text_pooling: str = END_OF_TEXT
    logit_bias: bool = False
    image_mean: tuple[float, ...] = CLIP_MEAN
    image_std: tuple[float, ...] = CLIP_STD


BACKBONES = {
    "clip": Backbone("CLIP"),
    "metaclip_2": Backbone("MetaClip2"),
    "siglip": Backbone(
        "Siglip",
        projected=False,
        text_pooling=LAST_TOKEN,
        logit_bias=True,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
    ),
}
"""By model type. SigLIP 2's checkpoints for a fixed resolution are of type `siglip` as well; `siglip2` is its NaFlex
variant, which takes patches instead of pictures."""


def find_backbone(model_type: str | None) -> Backbone:
    """
    The kind of dual encoder of that model type.

    Raises:
        ValueError: HCMI cannot be built around such a model; what it can be built around.
    """
    if model_type in BACKBONES:
        return BACKBONES[model_type]
    message = f"HCMI is built around dual encoders of type {', '.join(BACKBONES)}, not {model_type!r}."
    if model_type == "siglip2":
        message += (
            " That is SigLIP 2's NaFlex variant, which takes patches instead of pictures; its checkpoints for a fixed "
            "resolution, such as google/siglip2-base-patch16-224, are of type 'siglip'."
        )
    raise ValueError(message)


def tower_types(model_type: str) -> dict[str, str]:
    """The model types of the towers' configurations, by the names of these."""
    return {"text_config": f"{model_type}_text_model", "vision_config": f"{model_type}_vision_model"}


def build_towers(
    backbone: Backbone, text_config: PreTrainedConfig, vision_config: PreTrainedConfig
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Text and vision tower with fresh weights."""
    # By name: only the chosen one's code is imported, and a text tower alone has no entry in AutoModel.
    text, vision = (getattr(transformers, f"{backbone.prefix}{side}Model") for side in ("Text", "Vision"))
    return text._from_config(text_config), vision._from_config(vision_config)


def special_tokens(name_or_path: str, **hub: Any) -> dict[str, int]:
    """
    `pad_token_id` and `eos_token_id` of the tokenizer beside a checkpoint; none, with a warning, where none is there.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **hub)
    except (OSError, ValueError, ImportError) as error:
        logger.warning(
            f"{name_or_path} has no tokenizer that can be loaded ({' '.join(str(error).split())[:200]}): its texts are "
            "padded with text_config.pad_token_id of its configuration. Pass a text_config in config_overrides if that "
            "is not what it was trained with."
        )
        return {}
    return {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id")}
