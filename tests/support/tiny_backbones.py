"""Small random dual encoders of every kind that HCMI is built around, and whole checkpoints of them."""

from pathlib import Path
from typing import Any

import torch
from tiny_hcmi import SIZE, TEXT_CONFIG, VISION_CONFIG, tiny_clip, tiny_tokenizer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPImageProcessor,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

WIDE_VISION = VISION_CONFIG | {"hidden_size": 48, "hidden_act": "gelu"}
KINDS = ("clip", "laion", "metaclip_2", "siglip", "siglip 2")
"""`laion` has the traits of the CLIP ViT-H/14 in CLIPModel format, `siglip 2` those of its fixed-resolution one."""

WORDS = ("a", "red", "blue", "ring", "square", "slides", "grows", "then")


def tiny_backbone(kind: str) -> PreTrainedModel:
    """In evaluation mode; its weights are far enough apart to rank by."""
    if kind == "clip":
        return tiny_clip()
    if kind == "laion":
        # GELU, three different widths, and the end of text given by its id though nothing pads.
        text = TEXT_CONFIG | {"hidden_act": "gelu", "pad_token_id": 1}
        return tiny_clip(text_config=text, vision_config=WIDE_VISION, projection_dim=24, logit_scale_init_value=4.6)
    torch.manual_seed(0)
    model: PreTrainedModel
    if kind == "metaclip_2":
        text = TEXT_CONFIG | {"eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0}
        config: Any = MetaClip2Config(text_config=text, vision_config=VISION_CONFIG, projection_dim=16)
        model = MetaClip2Model(config)
    else:
        # As on the Hub: the configuration does not know the special tokens.
        text = {name: value for name, value in TEXT_CONFIG.items() if not name.endswith("token_id")}
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION_CONFIG))
        with torch.no_grad():
            # Published ones have about these; the scale is beyond CLIP's limit of 100.
            model.logit_scale.fill_(4.76)
            model.logit_bias.fill_(-12.9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    return model.eval()


def tiny_backbone_tokenizer(kind: str) -> Any:
    """The tokenizer that the kind's checkpoints have, as far as the model is concerned."""
    if kind in ("clip", "laion"):
        return tiny_tokenizer()
    # SigLIP pads with the end of text. It was trained without a mask, so its tokenizers give none; SigLIP 2's does not
    # know the length either.
    specials, template, options = {
        "metaclip_2": (["<s>", "<pad>", "</s>"], "<s> $A </s>", {"pad_token": "<pad>", "model_max_length": 24}),
        "siglip": (["<0>", "</s>"], "$A </s>", {"pad_token": "</s>", "model_max_length": 24}),
        "siglip 2": (["<pad>", "</s>"], "$A </s>", {"pad_token": "<pad>"}),
    }[kind]
    vocabulary = {word: i for i, word in enumerate([*specials, "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[(token, i) for token, i in vocabulary.items() if token in template]
    )
    if kind.startswith("siglip"):
        options["model_input_names"] = ["input_ids"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", **options)


def save_backbone(kind: str, folder: Path) -> PreTrainedModel:
    """Model, tokenizer and image processor, as a checkpoint has them; the model."""
    model = tiny_backbone(kind)
    model.save_pretrained(folder)
    tiny_backbone_tokenizer(kind).save_pretrained(folder)
    if kind.startswith("siglip"):
        SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    else:
        sizes = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
        CLIPImageProcessor(**sizes).save_pretrained(folder)
    return model
