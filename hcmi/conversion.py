"""HCMI around a pretrained dual encoder: the model with the processor that fits it."""

from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer

from hcmi.modeling_hcmi import HCMIConfig, HCMIModel
from hcmi.processing import HCMIProcessor
from hcmi.processing.frame_resizing import FrameSettings


def convert_clip(
    name_or_path: str,
    *,
    frames_per_video: int = 12,
    config_overrides: dict[str, Any] | None = None,
    revision: str | None = None,
    **kwargs: Any,
) -> tuple[HCMIModel, HCMIProcessor]:
    """
    HCMI around a checkpoint of CLIP or of another backbone (`hcmi.modeling_hcmi.backbones_hcmi.BACKBONES`), and the
    processor made of its image processor and tokenizer. Nothing has to be trained to retrieve with them: the model
    compares the sentence with the mean of the frames, as the dual encoder itself would.

    Args:
        name_or_path: a Hub repository or a folder, with model, image processor and tokenizer.
        frames_per_video: frames that the processor takes of a video.
        config_overrides: fields of `HCMIConfig` to set.
        revision: branch, tag or commit of the repository.
        kwargs: as for `HCMIModel.from_pretrained` (`dtype`, `device_map`, …).

    Raises:
        ValueError: the checkpoint is of another kind, incomplete, or prepares pictures in a way that frames cannot be.
        OSError: there is no such checkpoint, or something of it is missing.
    """
    hub = {} if revision is None else {"revision": revision}
    image_processor = AutoImageProcessor.from_pretrained(name_or_path, **hub)
    settings = FrameSettings.of(image_processor)
    overrides = {"image_mean": list(settings.mean), "image_std": list(settings.std)} | (config_overrides or {})
    model = HCMIModel.from_clip_pretrained(name_or_path, config_overrides=overrides, **hub, **kwargs)
    if frames_per_video > model.config.max_frames:
        raise ValueError(
            f"{frames_per_video} frames a video exceed the model's max_frames ({model.config.max_frames})."
        )
    tokenizer = fitting_tokenizer(name_or_path, model.config, **hub)
    return model, HCMIProcessor(image_processor, tokenizer, frames_per_video=frames_per_video)


def fitting_tokenizer(name_or_path: str, config: HCMIConfig, **hub: Any) -> Any:
    """
    A dual encoder's tokenizer, such that its outputs are what HCMI around that encoder takes: padding last, a mask, and
    no more tokens than the text tower has positions. (SigLIP's give no mask, and some know no length; HCMI itself pads
    its texts to the full length that it was trained with.)

    Raises:
        ValueError: a package that it needs is not installed.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **hub)
    except ImportError as error:
        raise ValueError(f"the tokenizer of {name_or_path} needs another package: {error}") from error
    tokenizer.padding_side = "right"
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.model_max_length = min(tokenizer.model_max_length, config.text_config.max_position_embeddings)
    return tokenizer
