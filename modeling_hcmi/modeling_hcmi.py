"""HCMI: a dual encoder's two towers, a hierarchy on each side, and their interaction, as a transformers model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple

from .aggregation_hcmi import HCMIAggregation, HCMIAttention, HCMIFeedForward
from .backbones_hcmi import BACKBONES, LAST_TOKEN, build_towers, find_backbone, special_tokens
from .configuration_hcmi import CONVERTING, LEVELS, UNTRAINED_INFERENCE_WEIGHTS, HCMIConfig
from .downloads_hcmi import checked_downloads
from .features_hcmi import HCMITextFeatures, HCMIVideoFeatures
from .hierarchy_hcmi import HCMIHierarchy, HCMITokenWeights
from .interaction_hcmi import HCMISimilarity, batch_similarity, blockwise_similarity
from .objective_hcmi import HCMIObjective, hcmi_objective


@dataclass
class HCMIOutput(ModelOutput):
    """
    Output of [`HCMIModel`] for `T` texts and `V` videos.

    Args:
        loss (scalar): with `return_loss=True`.
        logits_per_text (`(T, V)`): the combined similarity times the logit scale, plus the backbone's logit bias if it
            has one.
        logits_per_video (`(V, T)`): its transpose.
        text_embeds (`(T, D)`), video_embeds (`(V, D)`): sentence and video vectors, L2-normalised.
        text_features, video_features: embeddings of every level.
        similarity: every level's similarity.
        objective: the parts of the loss, with `return_loss=True`.
    """

    loss: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_features: HCMITextFeatures | None = None
    video_features: HCMIVideoFeatures | None = None
    similarity: HCMISimilarity | None = None
    objective: HCMIObjective | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(v.to_tuple() if isinstance(v, ModelOutput) else v for v in self.values())


class HCMIPreTrainedModel(PreTrainedModel):
    """Loading, saving and initial weights."""

    config: HCMIConfig
    base_model_prefix = "hcmi"
    main_input_name = "input_ids"
    input_modalities = ("video", "text")  # type: ignore[assignment]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["HCMIHierarchy"]  # and those of the towers, which transformers collects

    @classmethod
    def is_custom_code(cls) -> bool:
        # True would keep modules without parameters of their own, the towers' attention too, from `_init_weights`.
        return False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """
        As for every transformers model, but whole: a weight that the checkpoint lacks is no random one, and what is
        downloaded is what the Hub has. Who asks for `output_loading_info` gets the model as it is, and is told what is
        missing.

        Raises:
            ValueError: the checkpoint is another model's, lacks weights, or did not arrive as the Hub has it.
            OSError: there is no checkpoint of that name.
        """
        asked = kwargs.pop("output_loading_info", False)
        with checked_downloads(pretrained_model_name_or_path, kwargs.get("cache_dir")):
            loaded: Any = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        if pretrained_model_name_or_path is None or asked:
            return loaded if asked else loaded[0]
        model, loading = loaded
        if missing := sorted(loading["missing_keys"]):
            raise ValueError(
                f"{pretrained_model_name_or_path} lacks {len(missing)} weights of {cls.__name__} "
                f"(first: {missing[0]}). {CONVERTING}"
            )
        return model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        factor = self.config.initializer_factor
        width = self.config.projection_dim
        if isinstance(module, HCMIAttention):
            for projection in (module.q_proj, module.k_proj, module.v_proj):
                init.normal_(projection.weight, std=factor * width**-0.5 * (2 * self.config.aggregation_layers) ** -0.5)
            init.normal_(module.out_proj.weight, std=factor * width**-0.5)
        elif isinstance(module, HCMIFeedForward):
            init.normal_(module.fc1.weight, std=factor * (2 * width) ** -0.5)
            init.normal_(module.fc2.weight, std=factor * width**-0.5 * (2 * self.config.aggregation_layers) ** -0.5)
        elif isinstance(module, HCMIAggregation):
            # Queries of unit variance tell groups apart from the start; pooling begins as S·H alone.
            init.normal_(module.group_queries, std=factor)
            init.zeros_(module.pooling_attn.out_proj.weight)
        elif isinstance(module, HCMITokenWeights):
            if module.fc1 is not None:
                init.normal_(module.fc1.weight, std=factor * width**-0.5)
                init.normal_(module.fc2.weight, std=factor * width**-0.5)
        elif isinstance(module, HCMIHierarchy):
            if module.position_embedding is not None:
                init.normal_(module.position_embedding.weight, std=factor * self.config.initializer_range)
            if module.vector_residual:
                init.zeros_(module.vector_projection.weight)
            else:
                init.normal_(module.vector_projection.weight, std=factor * width**-0.5)
        elif isinstance(module, HCMIModel):
            if module.text_projection is not None:
                init.normal_(module.text_projection.weight, std=factor * self.config.text_config.hidden_size**-0.5)
                init.normal_(module.visual_projection.weight, std=factor * self.config.vision_config.hidden_size**-0.5)
            init.constant_(module.logit_scale, self.config.logit_scale_init_value)
            if module.logit_bias is not None:
                init.zeros_(module.logit_bias)
            init.copy_(module.image_mean, torch.tensor(self.config.image_mean))
            init.copy_(module.image_std, torch.tensor(self.config.image_std))


class HCMIModel(HCMIPreTrainedModel):
    """
    Text-video retrieval by Hierarchical Cross-Modal Interaction (Jiang et al., arXiv 2204.03382).

    Towers, projections and logit scale carry the names of the dual encoder that they are of, so that its checkpoints
    load into them; see [`HCMIModel.from_clip_pretrained`].
    """

    def __init__(self, config: HCMIConfig):
        super().__init__(config)
        text_config: Any = config.text_config
        vision_config: Any = config.vision_config
        backbone = BACKBONES[config.backbone]
        self.text_model, self.vision_model = build_towers(backbone, text_config, vision_config)
        self.text_projection = self.visual_projection = None
        if backbone.projected:
            self.text_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
            self.visual_projection = nn.Linear(vision_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(
            torch.full((1,) if backbone.logit_bias else (), float(config.logit_scale_init_value))
        )
        # No parameter: the contrastive loss is the same whatever it is, so it would get no gradient.
        self.logit_bias = nn.Buffer(torch.zeros(1)) if backbone.logit_bias else None
        self.video_hierarchy = HCMIHierarchy(
            config,
            max_tokens=config.max_frames,
            tokens_per_group=config.frames_per_clip,
            num_groups=config.num_clips,
            with_positions=True,
            contextual_tokens=True,
            token_residual=config.frame_residual,
            vector_residual=config.video_residual,
        )
        self.text_hierarchy = HCMIHierarchy(
            config,
            max_tokens=text_config.max_position_embeddings,
            tokens_per_group=config.words_per_phrase,
            num_groups=config.num_phrases,
            with_positions=False,
            contextual_tokens=False,
            token_residual=False,
            vector_residual=config.sentence_residual,
        )
        self.image_mean = nn.Buffer(torch.tensor(config.image_mean), persistent=False)
        self.image_std = nn.Buffer(torch.tensor(config.image_std), persistent=False)
        self.post_init()

    @classmethod
    def from_clip_pretrained(
        cls, name_or_path: str, *, config_overrides: dict[str, Any] | None = None, **kwargs: Any
    ) -> "HCMIModel":
        """
        HCMI around a pretrained CLIP or another dual encoder of its family (`BACKBONES`): the towers are loaded, the
        hierarchy is new.

        Until it is trained the model retrieves on the video-sentence level alone, where it is exactly mean-pooled CLIP
        [C]: CLIP's single words are not aligned with images. Training sets `inference_weights` to all levels.

        Args:
            name_or_path: a Hub repository or a folder with a checkpoint of `CLIPModel`, `SiglipModel`, ….
            config_overrides: fields of [`HCMIConfig`] to set.
            kwargs: as for `from_pretrained` (`dtype`, `device_map`, `attn_implementation`, `revision`, `token`, …).

        Raises:
            ValueError: if the checkpoint is of another kind, or lacks weights of the towers, or has weights with no
                place.
        """
        where = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
        hub = {key: kwargs[key] for key in where if key in kwargs}
        overrides = {"inference_weights": dict(UNTRAINED_INFERENCE_WEIGHTS)} | (config_overrides or {})
        config = cls._config_around(name_or_path, overrides, hub)
        # transformers would print a line for each of the hierarchy's new weights, and tell of a misfit less clearly.
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            kwargs |= {"config": config, "output_loading_info": True, "ignore_mismatched_sizes": True}
            loaded: Any = cls.from_pretrained(name_or_path, **kwargs)
        finally:
            logging.set_verbosity(verbosity)
        model, loading = loaded
        new = ("video_hierarchy.", "text_hierarchy.")
        missing = sorted(key for key in loading["missing_keys"] if not key.startswith(new))
        unexpected = sorted(loading["unexpected_keys"])
        mismatched = sorted(key for key, *_ in loading["mismatched_keys"])
        if missing or unexpected or mismatched:
            raise ValueError(
                f"{name_or_path} does not fit its own kind's towers: missing {missing[:5]}, unexpected "
                f"{unexpected[:5]}, of another shape {mismatched[:5]} ({len(missing)}, {len(unexpected)} and "
                f"{len(mismatched)} in all)."
            )
        if model.logit_bias is not None and "logit_scale_max" not in overrides:
            # SigLIP's scale is not clamped, and beyond CLIP's limit.
            model.config.logit_scale_max = max(model.config.logit_scale_max, model.logit_scale.exp().item())
        return model

    @staticmethod
    def _config_around(name_or_path: str, overrides: dict[str, Any], hub: dict[str, Any]) -> HCMIConfig:
        """The configuration of HCMI around the dual encoder in `name_or_path`."""
        found = PreTrainedConfig.get_config_dict(name_or_path, **hub)[0]
        model_type = found.get("model_type")
        if model_type == HCMIConfig.model_type:
            raise ValueError(f"{name_or_path} is an HCMI model already: load it with HCMIModel.from_pretrained.")
        try:
            backbone = find_backbone(model_type)
        except ValueError as error:
            raise ValueError(f"{name_or_path}: {error}") from None
        config = HCMIConfig.from_clip_config(CONFIG_MAPPING[model_type].from_dict(found), **overrides)
        if backbone.text_pooling == LAST_TOKEN and "text_config" not in overrides:
            # Such checkpoints' configurations do not tell what their texts are padded with.
            for name, token in special_tokens(name_or_path, **hub).items():
                setattr(config.text_config, name, token)
        return config

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        video_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> HCMIVideoFeatures:
        """
        Encodes videos.

        Args:
            pixel_values_videos (`(B, F, 3, H, W)`): frames, normalised floats or raw `uint8` (normalised here).
            video_mask (`(B, F)`, *optional*): which frames are real; default: all.
            kwargs: passed on to the vision tower (`output_hidden_states`, …).

        Raises:
            ValueError: wrong shape, too many frames, or a video without a real frame.
        """
        if pixel_values_videos.dim() != 5:
            raise ValueError(
                "pixel_values_videos has to be (videos, frames, channels, height, width), got "
                f"{tuple(pixel_values_videos.shape)}."
            )
        batch, frames = pixel_values_videos.shape[:2]
        if frames > self.config.max_frames:
            raise ValueError(f"{frames} frames a video exceed max_frames of this model ({self.config.max_frames}).")
        mask = _checked_mask(video_mask, (batch, frames), pixel_values_videos.device, "video_mask", "frame")

        pixels = self._normalised(pixel_values_videos.flatten(0, 1))
        tower = self.vision_model(pixel_values=pixels, return_dict=True, **kwargs)
        frame_features = tower.pooler_output
        if self.visual_projection is not None:
            frame_features = self.visual_projection(frame_features)
        frame_features = frame_features.unflatten(0, (batch, frames))
        # Whatever lies in the padding ends here, be it NaN.
        frame_features = frame_features.masked_fill(~mask[..., None], 0.0)
        mean = frame_features.sum(1) / mask.sum(1, keepdim=True)
        levels = self.video_hierarchy(frame_features, mask, mean)
        return HCMIVideoFeatures(
            pooler_output=levels.vector,
            frames=levels.tokens,
            clips=levels.groups,
            frame_mask=mask,
            clip_mask=levels.group_mask,
            frame_weights=levels.token_weights,
            clip_weights=levels.group_weights,
            clip_frame_weights=levels.group_token_weights,
            last_hidden_state=tower.last_hidden_state.unflatten(0, (batch, frames)),
            hidden_states=tower.hidden_states,
            attentions=tower.attentions,
        )

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> HCMITextFeatures:
        """
        Encodes texts.

        Args:
            input_ids (`(T, W)`): token ids, each row with an end-of-text token; padding comes last.
            attention_mask (`(T, W)`, *optional*): which tokens are real; default: those up to the first end of text.
            kwargs: passed on to the text tower (`output_hidden_states`, …).

        Raises:
            ValueError: a text without a real token.
        """
        if attention_mask is None:
            attention_mask = self._up_to_end_of_text(input_ids)
        mask = _checked_mask(attention_mask, tuple(input_ids.shape), input_ids.device, "attention_mask", "token")

        if self.config.text_pooling == LAST_TOKEN:
            tower = self.text_model(input_ids=self._filled_up(input_ids, mask), return_dict=True, **kwargs)
        else:
            tower = self.text_model(input_ids=input_ids, attention_mask=mask, return_dict=True, **kwargs)
        states, sentence = tower.last_hidden_state[:, : input_ids.shape[1]], tower.pooler_output
        if self.text_projection is None:
            head: Any = self.text_model.head
            words = head(states)
        else:
            words, sentence = self.text_projection(states), self.text_projection(sentence)
        levels = self.text_hierarchy(words, mask, sentence)
        return HCMITextFeatures(
            pooler_output=levels.vector,
            words=levels.tokens,
            phrases=levels.groups,
            word_mask=mask,
            phrase_mask=levels.group_mask,
            word_weights=levels.token_weights,
            phrase_weights=levels.group_weights,
            phrase_word_weights=levels.group_token_weights,
            last_hidden_state=states,
            hidden_states=tower.hidden_states,
            attentions=tower.attentions,
        )

    def scale(self) -> torch.Tensor:
        """The logit scale: exponentiated and clamped, a scalar."""
        return self.logit_scale.exp().clamp(max=self.config.logit_scale_max).squeeze()

    def score(
        self,
        text_features: HCMITextFeatures,
        video_features: HCMIVideoFeatures,
        levels: Sequence[str] = LEVELS,
        max_block_elements: int | None = None,
    ) -> HCMISimilarity:
        """
        Similarity of every text with every video, per level and combined by `inference_weights`, in blocks.

        See [`~interaction_hcmi.blockwise_similarity`] for the arguments.
        """
        weights = self.config.inference_weights
        return blockwise_similarity(text_features, video_features, weights, levels, max_block_elements)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        second_pixel_values_videos: torch.Tensor | None = None,
        second_video_mask: torch.Tensor | None = None,
        video_ids: torch.Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> HCMIOutput:
        """
        Encodes both sides and compares all texts with all videos.

        Args:
            input_ids, attention_mask: as for `get_text_features`.
            pixel_values_videos, video_mask: as for `get_video_features`.
            second_pixel_values_videos, second_video_mask: another view of the same videos, for label denoising; it is
                encoded without gradient. Without it no pairs are mined.
            video_ids (`(B,)`): equal ids are the same video; default: all differ.
            return_loss: compute the objective; text `i` has to describe video `i`.

        Raises:
            ValueError: one side is missing, or the loss is asked for and the numbers of texts and videos differ.
        """
        if input_ids is None or pixel_values_videos is None:
            raise ValueError("forward needs input_ids and pixel_values_videos; for one side alone use get_*_features.")
        video = self.get_video_features(pixel_values_videos, video_mask, return_dict=True, **kwargs)
        text = self.get_text_features(input_ids, attention_mask, return_dict=True, **kwargs)
        similarity = batch_similarity(text, video, self.config.inference_weights)
        logits_per_text = self.scale().to(similarity.combined.device) * similarity.combined
        if self.logit_bias is not None:
            logits_per_text = logits_per_text + self.logit_bias.to(logits_per_text)

        objective = None
        if return_loss:
            if len(input_ids) != len(pixel_values_videos):
                raise ValueError(
                    f"The loss needs a text a video, got {len(input_ids)} texts and {len(pixel_values_videos)} videos."
                )
            second = None
            if self.config.label_denoising and second_pixel_values_videos is not None:
                with torch.no_grad():
                    second = self.get_video_features(second_pixel_values_videos, second_video_mask).pooler_output
            objective = hcmi_objective(text, video, self.scale(), self.config, second, video_ids)

        return HCMIOutput(
            loss=None if objective is None else objective.loss,
            logits_per_text=logits_per_text,
            logits_per_video=logits_per_text.T,
            text_embeds=nn.functional.normalize(text.pooler_output, dim=-1),
            video_embeds=nn.functional.normalize(video.pooler_output, dim=-1),
            text_features=text,
            video_features=video,
            similarity=similarity,
            objective=objective,
        )

    def _up_to_end_of_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Mask of the tokens `(T, W)` up to the first end of text."""
        end = self.config.text_config.eos_token_id
        if end == 2 and self.config.backbone == "clip":
            # OpenAI's own checkpoints say 2 and mean the highest id of a text; CLIP's tower keeps to that.
            end = input_ids.amax(-1, keepdim=True)
        ends = (input_ids == end).long()
        return ends.cumsum(-1) - ends == 0

    def _filled_up(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The real tokens of `(T, W)`, padded to the text tower's full length."""
        config = self.config.text_config
        missing = config.max_position_embeddings - input_ids.shape[1]
        if missing < 0:
            raise ValueError(
                f"{input_ids.shape[1]} tokens a text exceed what this model takes ({config.max_position_embeddings})."
            )
        return nn.functional.pad(
            input_ids.masked_fill(~mask, config.pad_token_id), (0, missing), value=config.pad_token_id
        )

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Raw `uint8` frames `(N, 3, H, W)` as the processor would have normalised them; floats pass through."""
        if pixels.dtype != torch.uint8:
            return pixels
        mean, std = (t.float().view(1, -1, 1, 1) for t in (self.image_mean, self.image_std))
        # In place: a batch of frames is large, and each step would make a copy of it.
        return pixels.float().div_(255).sub_(mean).div_(std).to(self.logit_scale.dtype)


def _checked_mask(
    mask: torch.Tensor | None, shape: tuple[int, ...], device: torch.device, name: str, token: str
) -> torch.Tensor:
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if tuple(mask.shape) != shape:
        raise ValueError(f"{name} has to be of shape {shape}, got {tuple(mask.shape)}.")
    mask = mask.bool()
    # A compiled graph and a meta tensor have no values to look at.
    if not torch.compiler.is_compiling() and mask.device.type != "meta":
        empty = (~mask.any(-1)).nonzero().flatten().tolist()
        if empty:
            raise ValueError(f"{name}: rows {empty[:10]} have no real {token}; every row needs one.")
    return mask


__all__ = ["HCMIModel", "HCMIOutput", "HCMIPreTrainedModel"]
