"""Small random models and inputs: CLIP, HCMI around it, videos and texts."""

from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from hcmi.modeling_hcmi import HCMIConfig, HCMIModel

VOCABULARY = 99
END_OF_TEXT = 98
SIZE = 16

_TOWER = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT_CONFIG: dict[str, Any] = _TOWER | {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
    "bos_token_id": 97,
    "eos_token_id": END_OF_TEXT,
}
VISION_CONFIG: dict[str, Any] = _TOWER | {"image_size": SIZE, "patch_size": 8}


def tiny_config(**fields: Any) -> HCMIConfig:
    """A configuration of a model with about 60 thousand parameters; `fields` are HCMIConfig's."""
    defaults = {"text_config": TEXT_CONFIG, "vision_config": VISION_CONFIG, "projection_dim": 16, "max_frames": 12}
    return HCMIConfig(**(defaults | {"aggregation_heads": 2} | fields))


def tiny_model(seed: int = 0, attn_implementation: str | None = None, **fields: Any) -> HCMIModel:
    """
    A random model in evaluation mode. What starts at zero is drawn too, so that every part takes a share in the result.
    """
    config = tiny_config(**fields)
    if attn_implementation is not None:
        config._attn_implementation = attn_implementation
    torch.manual_seed(seed)
    model = HCMIModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 0 and not parameter.any():
                parameter.normal_(std=0.1)
    return model


def tiny_clip(seed: int = 0, **fields: Any) -> CLIPModel:
    """A random CLIP of the same shape, in evaluation mode; its weights are far enough apart to rank by."""
    config = CLIPConfig(**({"text_config": TEXT_CONFIG, "vision_config": VISION_CONFIG, "projection_dim": 16} | fields))
    torch.manual_seed(seed)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model


def random_videos(videos: int = 3, frames: int = 5, seed: int = 1) -> torch.Tensor:
    """`(videos, frames, 3, SIZE, SIZE)` floats."""
    return torch.randn(videos, frames, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def random_texts(
    lengths: tuple[int, ...] = (6, 9, 4), seed: int = 2, width: int | None = None
) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of texts with so many tokens, an end of text last, zeros behind."""
    width = width or max(lengths)
    ids = torch.randint(1, 90, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = ids.masked_fill(~mask, 0)
    ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = END_OF_TEXT
    return {"input_ids": ids, "attention_mask": mask.long()}


def unlike(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors differ by more than rounding; guards tests that would also pass on constant outputs."""
    return not torch.allclose(first, second, atol=1e-3)


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's kind of tokenizer, which spells every word; its ids fit the tiny models."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|pad|>", "<|unknown|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {token: i for i, token in enumerate(tokens)} | {"<|startoftext|>": 97, "<|endoftext|>": END_OF_TEXT}
    return CLIPTokenizer(vocab=vocabulary, merges=[], unk_token="<|unknown|>", pad_token="<|pad|>", model_max_length=24)
