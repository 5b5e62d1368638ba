"""The configuration of HCMI: a dual encoder's two towers, the hierarchy on top of them, and the objective."""

import math
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from .backbones_hcmi import BACKBONES, find_backbone, tower_types

LEVELS = ("frame_word", "clip_phrase", "video_sentence")
"""The three levels of the hierarchy, from fine to coarse."""

UNTRAINED_INFERENCE_WEIGHTS = {"frame_word": 0.0, "clip_phrase": 0.0, "video_sentence": 1.0}
"""Of a model made from CLIP: its single words are not aligned with images before training [C]."""

CONVERTING = (
    f"HCMIModel.from_clip_pretrained, or `hcmi convert`, makes an HCMI of a checkpoint of {', '.join(BACKBONES)}."
)
"""The way out for who gives another model's checkpoint."""

INTERACTIONS = ("weighted", "max_mean")
"""Token-wise interactions: learned token weights (Wang et al., arXiv 2203.07111), or every token the same weight."""

_NUMBERS = (
    "marginal_margin", "marginal_weight", "logit_scale_init_value", "logit_scale_max", "image_mean", "image_std",
    "loss_weights", "inference_weights", "initializer_range", "initializer_factor",
)  # fmt: skip


@strict
class HCMIConfig(PreTrainedConfig):
    r"""
    Configuration of [`HCMIModel`]. The marks say where a choice comes from: [A] the authors of HCMI, [C] this package
    (nothing was published, so every such choice can be set otherwise here).

    Args:
        backbone (`str`, defaults to `"clip"`): model type of the dual encoder whose towers these are, one of
            `BACKBONES`: `"clip"`, `"metaclip_2"`, or `"siglip"` (also SigLIP 2, except its NaFlex variant).
        text_config (`PreTrainedConfig` or `dict`, *optional*): its text tower; default: transformers' own for that
            type, for CLIP that of ViT-B/32. Its `pad_token_id` fills up texts for a tower that pools the last token.
        vision_config (`PreTrainedConfig` or `dict`, *optional*): its vision tower; default: likewise.
        text_pooling (`str`, *optional*): follows from `backbone` and says what the tower's own sentence feature is:
            `"end_of_text"`, the state of the first end-of-text token, projected; or `"last_token"` (SigLIP), what the
            tower's head makes of the last position of a text padded to `text_config.max_position_embeddings`, padding
            included in attention. Words are then the states of the real tokens through the same head [C].
        projection_dim (`int`, defaults to 512): joint width `D` of all embeddings (CLIP's projection width; with a
            backbone without projections, such as SigLIP, the towers' own width).
        max_frames (`int`, defaults to 64): the most frames a video may have (rows of the frame-position table).
        frames_per_clip (`int`, defaults to 4): `F` frames make `ceil(F / frames_per_clip)` clips [C].
        num_clips (`int`, *optional*): a fixed number of clips instead (never more than a video has frames).
        words_per_phrase (`int`, defaults to 4): `W` tokens make `ceil(W / words_per_phrase)` phrases [C].
        num_phrases (`int`, *optional*): a fixed number of phrases instead (never more than a sentence has tokens).
        aggregation_layers (`int`, defaults to 1): transformer blocks in each of the four aggregation layers [C].
        aggregation_heads (`int`, *optional*): attention heads of these; default `projection_dim / 64`, at least 1 [C].
        aggregation_intermediate_size (`int`, *optional*): their feed-forward width; default `4 * projection_dim` [C].
        aggregation_dropout (`float`, defaults to 0.0): dropout on attention and feed-forward inside them.
        frame_residual (`bool`, defaults to `True`): frame embeddings are CLIP's frame features plus the contextual
            ones; otherwise the contextual ones alone [C].
        video_residual (`bool`, defaults to `True`): the mean of CLIP's frame features is added to the video vector [C].
        sentence_residual (`bool`, defaults to `True`): the text tower's own sentence feature (see `text_pooling`) is
            added to the sentence vector [C].
        frame_word_interaction (`str`, defaults to `"weighted"`): `"weighted"` or `"max_mean"` [C].
        clip_phrase_interaction (`str`, defaults to `"weighted"`): `"weighted"` or `"max_mean"` [C].
        loss_weights (`dict[str, float]`, *optional*): weight of each level in the loss; default 1 each [C].
        inference_weights (`dict[str, float]`, *optional*): weight of each level in the combined similarity, which is
            their weighted mean; default 1 each [C].
        label_denoising (`bool`, defaults to `True`): mine hidden positives in the batch from two views of a video [A].
        marginal_margin (`float`, defaults to 0.2): margin `θ` of marginal sample enhancement [A], on cosines [C].
        marginal_weight (`float`, defaults to 1.0): its weight in the loss, 0 switches it off [C].
        logit_scale_init_value (`float`, defaults to 2.6592): natural logarithm of the initial logit scale, as in CLIP.
        logit_scale_max (`float`, defaults to 100.0): the scale is clamped to this, as in CLIP [C].
        image_mean, image_std (`list[float]`, *optional*): per channel, of pixels in 0..1; the model normalises `uint8`
            frames with them; default: those of the backbone's checkpoints. They have to be those of the processor.
        initializer_range (`float`, defaults to 0.02): standard deviation of the frame positions' initial weights.
        initializer_factor (`float`, defaults to 1.0): factor on every initial weight.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a value of a wrong type or an impossible one, with its field.
    """

    model_type = "hcmi"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        side: SubConfigSpec(AutoConfig, model_type=tower) for side, tower in tower_types("clip").items()
    }

    backbone: str = "clip"
    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    text_pooling: str | None = None
    projection_dim: int = 512
    max_frames: int = 64
    frames_per_clip: int = 4
    num_clips: int | None = None
    words_per_phrase: int = 4
    num_phrases: int | None = None
    aggregation_layers: int = 1
    aggregation_heads: int | None = None
    aggregation_intermediate_size: int | None = None
    aggregation_dropout: float | int = 0.0
    frame_residual: bool = True
    video_residual: bool = True
    sentence_residual: bool = True
    frame_word_interaction: str = "weighted"
    clip_phrase_interaction: str = "weighted"
    loss_weights: dict[str, float | int] | None = None
    inference_weights: dict[str, float | int] | None = None
    label_denoising: bool = True
    marginal_margin: float | int = 0.2
    marginal_weight: float | int = 1.0
    logit_scale_init_value: float | int = 2.6592
    logit_scale_max: float | int = 100.0
    image_mean: list[float | int] | None = None
    image_std: list[float | int] | None = None
    initializer_range: float | int = 0.02
    initializer_factor: float | int = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        if self.backbone in BACKBONES:
            traits = BACKBONES[self.backbone]
            for side, tower in tower_types(self.backbone).items():
                if (given := getattr(self, side)) is None or isinstance(given, dict):
                    setattr(self, side, {"model_type": tower} | (given or {}))
            if self.text_pooling is None:
                self.text_pooling = traits.text_pooling
            if self.image_mean is None:
                self.image_mean = list(traits.image_mean)
            if self.image_std is None:
                self.image_std = list(traits.image_std)
        if self.aggregation_heads is None:
            self.aggregation_heads = max(1, self.projection_dim // 64)
        if self.aggregation_intermediate_size is None:
            self.aggregation_intermediate_size = 4 * self.projection_dim
        if self.loss_weights is None:
            self.loss_weights = dict.fromkeys(LEVELS, 1.0)
        if self.inference_weights is None:
            self.inference_weights = dict.fromkeys(LEVELS, 1.0)
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Refuses what no model can be built from; runs at construction. Every message names the field."""
        self._validate_towers()
        for name in ("projection_dim", "max_frames", "frames_per_clip", "words_per_phrase", "aggregation_layers",
                     "aggregation_heads", "aggregation_intermediate_size"):  # fmt: skip
            _require(getattr(self, name) >= 1, name, getattr(self, name), "has to be at least 1")
        for name in ("num_clips", "num_phrases"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "has to be at least 1, or None for a ratio")
        _require(
            self.projection_dim % self.aggregation_heads == 0,
            "aggregation_heads", self.aggregation_heads, f"has to divide projection_dim ({self.projection_dim})",
        )  # fmt: skip
        _require(self.num_clips is None or self.num_clips <= self.max_frames, "num_clips", self.num_clips,
                 f"exceeds max_frames ({self.max_frames})")  # fmt: skip
        positions = self.text_config.max_position_embeddings
        _require(self.num_phrases is None or self.num_phrases <= positions, "num_phrases", self.num_phrases,
                 f"exceeds text_config.max_position_embeddings ({positions})")  # fmt: skip
        _require(
            0 <= self.aggregation_dropout < 1, "aggregation_dropout", self.aggregation_dropout, "has to be in [0, 1)"
        )
        for name in _NUMBERS:
            value = getattr(self, name)
            numbers = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            _require(all(map(math.isfinite, numbers)), name, value, "has to be finite")
        for name in ("frame_word_interaction", "clip_phrase_interaction"):
            _require(getattr(self, name) in INTERACTIONS, name, getattr(self, name), f"has to be one of {INTERACTIONS}")
        for name in ("loss_weights", "inference_weights"):
            weights = getattr(self, name)
            _require(set(weights) == set(LEVELS), name, weights, f"has to name exactly the levels {LEVELS}")
            _require(min(weights.values()) >= 0, name, weights, "must not be negative")
            _require(sum(weights.values()) > 0, name, weights, "has to give one level a positive weight")
        for name in ("marginal_margin", "marginal_weight", "initializer_range", "initializer_factor"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative")
        _require(self.logit_scale_max > 0, "logit_scale_max", self.logit_scale_max, "has to be positive")
        channels = self.vision_config.num_channels
        for name in ("image_mean", "image_std"):
            _require(len(getattr(self, name)) == channels, name, getattr(self, name),
                     f"needs one value for each of the {channels} channels")  # fmt: skip
        _require(min(self.image_std) > 0, "image_std", self.image_std, "has to be positive")

    def _validate_towers(self) -> None:
        """The towers are those of the backbone, and end in the joint space."""
        _require(self.backbone in BACKBONES, "backbone", self.backbone, f"has to be one of {tuple(BACKBONES)}")
        for side, tower in tower_types(self.backbone).items():
            found = getattr(self, side).model_type
            _require(found == tower, side, found, f"has to be of type {tower!r} for the backbone {self.backbone!r}")
        traits = BACKBONES[self.backbone]
        _require(self.text_pooling == traits.text_pooling, "text_pooling", self.text_pooling,
                 f"has to be {traits.text_pooling!r} for the backbone {self.backbone!r}")  # fmt: skip
        if not traits.projected:
            own = {self.vision_config.hidden_size, self.text_config.projection_size}
            _require(own == {self.projection_dim}, "projection_dim", self.projection_dim,
                     f"has to be the towers' own width ({sorted(own)}) for {self.backbone!r}")  # fmt: skip
            _require(self.vision_config.vision_use_head, "vision_config", "vision_use_head=False",
                     "needs the head that pools the patches")  # fmt: skip

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        As for every configuration, but of HCMI alone: the default of every field that another model does not know would
        make an HCMI of random weights.

        Raises:
            ValueError: the `config.json` there is another model's, or none.
            OSError: there is no such repository.
        """
        found, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if (model_type := found.get("model_type")) != cls.model_type:
            what = "has no config.json" if model_type is None else f"is a model of type {model_type!r}"
            raise ValueError(f"{pretrained_model_name_or_path} {what}, no HCMI. {CONVERTING}")
        return found, unused

    @classmethod
    def from_clip_config(cls, clip_config: PreTrainedConfig, **overrides: Any) -> "HCMIConfig":
        """
        HCMI around the towers of a dual encoder's configuration, CLIP's or another of `BACKBONES`; `overrides` are
        fields of this class.

        Raises:
            ValueError: HCMI is not built around such a model.
        """
        own = find_backbone(clip_config.model_type)
        same = ("projection_dim", "logit_scale_init_value", "initializer_factor")
        fields = {name: getattr(clip_config, name) for name in same if hasattr(clip_config, name)}
        if not own.projected:
            fields["projection_dim"] = clip_config.vision_config.hidden_size
        fields |= {
            "backbone": clip_config.model_type,
            "text_config": clip_config.text_config.to_dict(),
            "vision_config": clip_config.vision_config.to_dict(),
        }
        return cls(**fields | overrides)


def _require(condition: bool, field: str, value: Any, what: str) -> None:
    if not condition:
        raise ValueError(f"`{field}` of HCMIConfig {what}, got {value!r}.")
