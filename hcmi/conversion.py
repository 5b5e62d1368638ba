"""HCMI around a pretrained dual encoder: the model with the processor that fits it."""

from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer

from hcmi.modeling_hcmi import HCMIModel
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
        ValueError: the checkpoint is of another kind, incomplete, needs a package that is not installed, or prepares
            pictures in a way that frames cannot be.
        OSError: there is no such checkpoint, or something of it is missing.
    """
    hub = {} if revision is None else {"revision": revision}
    # First, because it says best what is wrong with the name, and before the weights, because it may lack a package.
    tokenizer = _tokenizer(name_or_path, hub)
    image_processor = AutoImageProcessor.from_pretrained(name_or_path, **hub)
    settings = FrameSettings.of(image_processor)
    overrides = {"image_mean": list(settings.mean), "image_std": list(settings.std)} | (config_overrides or {})
    model = HCMIModel.from_clip_pretrained(name_or_path, config_overrides=overrides, **hub, **kwargs)
    if frames_per_video > model.config.max_frames:
        raise ValueError(
            f"{frames_per_video} frames a video exceed the model's max_frames ({model.config.max_frames})."
        )
    # Some know no length; HCMI itself pads its texts to the full length that SigLIP was trained with.
    tokenizer.model_max_length = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
    return model, HCMIProcessor(image_processor, tokenizer, frames_per_video=frames_per_video)


def _tokenizer(name_or_path: str, hub: dict[str, Any]) -> Any:
    """
    A dual encoder's tokenizer, with the outputs that HCMI around that encoder takes: padding last, and a mask, which
    SigLIP's do not give.

    Raises:
        ValueError: a package that it needs is not installed.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **hub)
    except ImportError as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise ValueError(
            f"the tokenizer of {name_or_path} needs a package that is not installed ({reason}). "
            'What SigLIP\'s needs: pip install "hcmi[siglip]"'
        ) from error
    tokenizer.padding_side = "right"
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer
