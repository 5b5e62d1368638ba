"""The FLOPs that HCMI's mathematics asks for, counted from its configuration.

Matrix products only, two FLOPs for each multiplication with its addition: what activations, norms, softmaxes and maxima
take is not counted, nor what an implementation computes twice (gradient checkpointing, blocks that are recomputed).
"""

from typing import Any

from hcmi.modeling_hcmi import HCMIConfig

TOWERS = ("video tower", "text tower")
PARTS = (*TOWERS, "hierarchy", "objective")


def forward_flops(config: HCMIConfig, *, batch: int, frames: int, words: int) -> dict[str, int]:
    """
    Of one forward pass over `batch` pairs, by `PARTS`; padding counts as what it pads.

    The towers are CLIP's, with the projections of frames and sentences. The hierarchy begins with the projection of the
    single words. The objective is the products of all pairs of tokens on all levels.
    """
    width = config.projection_dim
    clips = _groups(frames, config.num_clips, config.frames_per_clip)
    phrases = _groups(words, config.num_phrases, config.words_per_phrase)
    projection = 2 * config.text_config.hidden_size * width
    hierarchies = words * projection + _hierarchy(config, words, phrases) + _hierarchy(config, frames, clips)
    return {
        "video tower": batch * frames * _vision_tower(config.vision_config, width),
        "text tower": batch * (_tower(config.text_config, words) + projection),
        "hierarchy": batch * hierarchies,
        "objective": 2 * batch**2 * width * (words * frames + phrases * clips + 1),
    }


def step_flops(config: HCMIConfig, *, batch: int, frames: int, words: int, second_view: bool) -> dict[str, int]:
    """
    Of one training step, by `PARTS`: the backward takes twice the forward. The second view of label denoising passes
    the video tower and its hierarchy, and the mean views are compared, all without a backward.
    """
    forward = forward_flops(config, batch=batch, frames=frames, words=words)
    step = {part: 3 * flops for part, flops in forward.items()}
    if second_view:
        clips = _groups(frames, config.num_clips, config.frames_per_clip)
        step["video tower"] += forward["video tower"]
        step["hierarchy"] += batch * _hierarchy(config, frames, clips)
        step["objective"] += 2 * batch**2 * config.projection_dim
    return step


def _groups(tokens: int, fixed: int | None, tokens_per_group: int) -> int:
    return min(tokens, fixed) if fixed else -(-tokens // tokens_per_group)


def _vision_tower(config: Any, width: int) -> int:
    """Of one frame."""
    patches = (config.image_size // config.patch_size) ** 2
    embedding = 2 * patches * config.num_channels * config.patch_size**2 * config.hidden_size
    return embedding + _tower(config, patches + 1) + 2 * config.hidden_size * width


def _tower(config: Any, tokens: int) -> int:
    return config.num_hidden_layers * _block(tokens, config.hidden_size, config.intermediate_size)


def _block(tokens: int, width: int, hidden: int) -> int:
    """A transformer block over one sequence: four projections, attention, feed-forward."""
    return 8 * tokens * width**2 + 4 * tokens**2 * width + 4 * tokens * width * hidden


def _hierarchy(config: HCMIConfig, tokens: int, groups: int) -> int:
    """Of one video or text: both aggregation layers, the projection of the vector, and the weights of both levels."""
    width = config.projection_dim
    weighted = (config.frame_word_interaction == "weighted") * tokens
    weighted += (config.clip_phrase_interaction == "weighted") * groups
    layers = _aggregation(config, tokens, groups) + _aggregation(config, groups, 1)
    return layers + 2 * width**2 + weighted * (2 * width**2 + 2 * width)


def _aggregation(config: HCMIConfig, tokens: int, groups: int) -> int:
    width, hidden = config.projection_dim, config.aggregation_intermediate_size
    blocks = config.aggregation_layers * _block(tokens, width, hidden)
    soft_assignment = 4 * groups * tokens * width
    attention = 4 * groups * width**2 + 4 * tokens * width**2 + 4 * groups * tokens * width
    return blocks + soft_assignment + attention
