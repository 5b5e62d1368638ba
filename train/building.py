"""What a run starts with: model and processor, from a checkpoint or from scratch, and the step that trains them."""

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, CLIPImageProcessor, get_cosine_schedule_with_warmup

from hcmi.conversion import convert_clip
from hcmi.modeling_hcmi import LEVELS, HCMIConfig, HCMIModel
from hcmi.modeling_hcmi.configuration_hcmi import UNTRAINED_INFERENCE_WEIGHTS
from hcmi.processing import HCMIProcessor

from .arguments import TrainingArguments
from .attention import set_attention
from .data.tokenizer import train_tokenizer
from .lora import add_lora, is_adapter
from .sharding import make_shardable
from .step import PairEncoder, TrainingStep

HIERARCHY = ("video_hierarchy.", "text_hierarchy.")
"""Beginnings of the names of the parameters that CLIP does not have."""


def build(arguments: TrainingArguments, captions: Iterable[str]) -> tuple[HCMIModel, HCMIProcessor]:
    """
    Model and processor of a run; the model in float32, with `freeze` applied.

    Args:
        arguments: `model` or `model_config`, `config_overrides`, `frames_per_video`, `attention`, `freeze`.
        captions: of the training split; a model from scratch learns its vocabulary from them.

    Raises:
        ValueError: a file or checkpoint that does not fit, or frames that the model cannot take.
    """
    _require_known(arguments.config_overrides, "config_overrides")
    try:
        if arguments.model_config is not None:
            model, processor = _from_scratch(arguments, captions)
        else:
            model, processor = _from_checkpoint(arguments)
    except StrictDataclassError as error:
        raise ValueError(f"the model's configuration is impossible: {error}") from error
    if arguments.frames_per_video > model.config.max_frames:
        raise ValueError(
            f"frames_per_video is {arguments.frames_per_video}, but the model takes {model.config.max_frames} "
            "(max_frames)"
        )
    # Saved with the model, as frames_per_video is: whoever loads it cuts texts where the training did.
    processor.tokenizer.model_max_length = _text_length(arguments, model, processor)
    if arguments.attention is not None:
        set_attention(model, arguments.attention)
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    for name, parameter in model.named_parameters():
        part = "hierarchy" if name.startswith(HIERARCHY) else "towers"
        parameter.requires_grad_(part not in arguments.freeze)
    if arguments.lora_rank:
        add_lora(model, arguments.lora_rank)
    return model, processor


def parameter_groups(model: HCMIModel, arguments: TrainingArguments) -> list[dict[str, Any]]:
    """
    Two learning rates (towers, hierarchy) times with and without weight decay (biases, norms and scalars have none).

    Raises:
        ValueError: everything is frozen.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        new = name.startswith(HIERARCHY) or is_adapter(name)
        rate = arguments.learning_rate if new else arguments.tower_learning_rate
        decay = arguments.weight_decay if parameter.dim() > 1 else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    if not groups:
        raise ValueError(f"nothing is left to train: freeze = {', '.join(arguments.freeze)}")
    return list(groups.values())


def build_step(model: HCMIModel, accelerator: Accelerator, arguments: TrainingArguments, batches: int) -> TrainingStep:
    """
    What is done with a batch: the model's pairs prepared for the run's processes, AdamW, and a warm-up with a cosine.

    Args:
        model: on the CPU yet; the accelerator moves it.
        accelerator: of this process.
        arguments: of the run.
        batches: of an epoch.

    Raises:
        ValueError: everything is frozen, or the launcher wants what the step cannot do.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        make_shardable(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, arguments), betas=(0.9, 0.98), eps=1e-6, fused=True)
    updates = arguments.epochs * -(-batches // arguments.accumulation_steps)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(arguments.warmup_share * updates), updates)
    prepared: Any = accelerator.prepare(PairEncoder(model), optimizer, schedule)
    encoder, optimizer, schedule = prepared
    return TrainingStep(
        accelerator,
        encoder,
        optimizer,
        schedule,
        model.config,
        chunk_size=arguments.chunk_size,
        accumulation_steps=arguments.accumulation_steps,
        max_gradient_norm=arguments.max_gradient_norm,
    )


def _text_length(arguments: TrainingArguments, model: HCMIModel, processor: HCMIProcessor) -> int:
    most = min(processor.tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
    length = most if arguments.max_words is None else arguments.max_words
    if not 3 <= length <= most:
        raise ValueError(f"max_words must lie in 3..{most} for this model, not {length}")
    return length


def _from_scratch(arguments: TrainingArguments, captions: Iterable[str]) -> tuple[HCMIModel, HCMIProcessor]:
    path = Path(str(arguments.model_config))
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"model_config {path}: cannot be read as JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"model_config {path}: has to hold the fields of HCMIConfig, not a {type(settings).__name__}")
    _require_known(settings, f"model_config {path}")
    length = settings.get("text_config", {}).get("max_position_embeddings", 77)
    tokenizer = train_tokenizer(captions, vocab_size=arguments.vocabulary, max_length=length)
    settings["text_config"] = settings.get("text_config", {}) | {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = HCMIConfig.from_dict(settings | arguments.config_overrides)
    side: Any = config.vision_config.image_size
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=config.image_mean,
        image_std=config.image_std,
    )
    return HCMIModel(config), HCMIProcessor(image_processor, tokenizer, frames_per_video=arguments.frames_per_video)


def _from_checkpoint(arguments: TrainingArguments) -> tuple[HCMIModel, HCMIProcessor]:
    name = str(arguments.model)
    config = AutoConfig.from_pretrained(name)
    if config.model_type == HCMIConfig.model_type:
        converted = config.inference_weights == UNTRAINED_INFERENCE_WEIGHTS
        config = HCMIConfig.from_dict(config.to_dict() | arguments.config_overrides)
        if converted and "inference_weights" not in arguments.config_overrides and _trains_tokens(config):
            config.inference_weights = dict.fromkeys(LEVELS, 1.0)
        model = HCMIModel.from_pretrained(name, config=config, dtype="float32")
        processor = HCMIProcessor.from_pretrained(name)
        processor.frames_per_video = arguments.frames_per_video
        return model, processor
    # After training every level counts, unless told otherwise.
    overrides = {"inference_weights": dict.fromkeys(LEVELS, 1.0)} | arguments.config_overrides
    frames = arguments.frames_per_video
    return convert_clip(name, frames_per_video=frames, config_overrides=overrides, dtype="float32")


def _trains_tokens(config: HCMIConfig) -> bool:
    """Whether a level below that of the whole video and sentence is trained."""
    return any(config.loss_weights[level] > 0 for level in LEVELS if level != "video_sentence")


def _require_known(names: Iterable[str], where: str) -> None:
    """A mistyped field would become one more attribute of the configuration, without any effect."""
    known = {entry.name for entry in fields(HCMIConfig)} | {"model_type", "auto_map"}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"{where}: HCMIConfig has no field {', '.join(unknown)}")
