"""The training steps that `train_step.py` measures: their models and data, and where their time goes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPConfig, get_constant_schedule

from hcmi.modeling_hcmi import HCMIConfig, HCMIModel
from hcmi.train.step import PairEncoder, TrainingStep

SMALL = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
MODELS: dict[str, dict[str, Any]] = {
    "small": {"vision_config": SMALL | {"patch_size": 32}, "text_config": SMALL, "projection_dim": 256},
    "b32": {"vision_config": {"patch_size": 32}},
    "b16": {"vision_config": {"patch_size": 16}},
}
ATTENTION = {"eager": "eager", "sdpa": "sdpa", "flash": "flash_attention_2"}


@dataclass(frozen=True)
class Settings:
    """One training step; `matrix` is the side of the product that the device's rate is measured with."""

    device: str = "cpu"
    model: str = "b32"
    batch: int = 4
    frames: int = 12
    image_size: int = 224
    words: int = 32
    dtype: str = "float32"
    attention: str = "sdpa"
    compile: bool = False
    gradient_checkpointing: bool = False
    chunk_size: int = 0
    threads: int = 1
    give_back: bool = False
    seed: int = 0
    warmup: int = 1
    repeats: int = 3
    matrix: int = 2048

    @property
    def on_cpu(self) -> bool:
        return torch.device(self.device).type == "cpu"

    def config(self) -> HCMIConfig:
        """CLIP's own configuration of the towers, for frames of `image_size`."""
        fields = MODELS[self.model]
        vision = fields["vision_config"] | {"image_size": self.image_size}
        return HCMIConfig.from_clip_config(CLIPConfig(**fields | {"vision_config": vision}), max_frames=self.frames)


class Stopwatch:
    """
    Divides a step among its parts: `lap` gives the time since the last one to a part. Off unless `running`, since it
    waits for the GPU. On a CPU it counts the time that the processor works.
    """

    def __init__(self, settings: Settings) -> None:
        self.device = torch.device(settings.device)
        self.seconds: dict[str, float] = {}
        self.running = False
        self.since = 0.0

    def divide(self, step: Callable[[], Any]) -> dict[str, float]:
        """Seconds of one step by part."""
        self.running, self.seconds, self.since = True, {}, self.now()
        step()
        self.lap("other")
        self.running = False
        return self.seconds

    def now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def lap(self, part: str) -> None:
        if self.running:
            now = self.now()
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self.since
            self.since = now

    def watch(self, module: nn.Module, part: str) -> None:
        """Gives the module's forward to a part; without gradient it is that of the second view, or of cached chunks."""
        module.register_forward_pre_hook(lambda *_: self.lap("other"))
        module.register_forward_hook(lambda *_: self.lap(part if torch.is_grad_enabled() else "no gradient"))


class WatchedAccelerator(Accelerator):
    """Tells the stopwatch of the backward, and that what was done before it was the objective."""

    watch: Stopwatch

    def backward(self, loss: torch.Tensor, **kwargs: Any) -> None:
        self.watch.lap("objective")
        super().backward(loss, **kwargs)
        self.watch.lap("backward")

    def clip_grad_norm_(self, *args: Any, **kwargs: Any) -> Any:
        # In chunks the encoders' backward is not the accelerator's.
        self.watch.lap("backward")
        norm = super().clip_grad_norm_(*args, **kwargs)
        self.watch.lap("clipping")
        return norm


class MeanPooledCLIP(nn.Module):
    """The plain baseline: the mean of CLIP's frame features against its sentence feature."""

    def __init__(self, model: HCMIModel) -> None:
        super().__init__()
        self.vision_model, self.visual_projection = model.vision_model, model.visual_projection
        self.text_model, self.text_projection = model.text_model, model.text_projection
        self.logit_scale = model.logit_scale
        self.image_mean, self.image_std = model.image_mean, model.image_std

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sentences and videos `(B, D)`, and the logit scale."""
        pixels = batch["pixel_values_videos"]
        frames = pixels.flatten(0, 1)
        if frames.dtype == torch.uint8:
            frames = (frames / 255 - self.image_mean.view(-1, 1, 1)) / self.image_std.view(-1, 1, 1)
        features = self.visual_projection(self.vision_model(pixel_values=frames).pooler_output)
        text = self.text_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        sentences = self.text_projection(text.pooler_output)
        return sentences, features.unflatten(0, pixels.shape[:2]).mean(1), self.logit_scale.exp()


def info_nce(text: torch.Tensor, video: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Symmetric cross-entropy of the cosines, in float32."""
    with torch.autocast(text.device.type, enabled=False):
        logits = scale * normalize(text.float(), dim=-1) @ normalize(video.float(), dim=-1).T
        own = torch.arange(len(logits), device=logits.device)
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def new_model(settings: Settings) -> HCMIModel:
    torch.manual_seed(settings.seed)
    model = HCMIModel._from_config(settings.config(), attn_implementation=ATTENTION[settings.attention])
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model.train().to(settings.device)


def new_batch(settings: Settings, views: int) -> dict[str, torch.Tensor]:
    """As `PairCollator` makes it: texts of a quarter to the whole of `words` tokens, videos of all their frames."""
    generator = torch.Generator().manual_seed(settings.seed)
    config = settings.config()
    shape = (settings.batch, settings.frames)
    lengths = torch.randint(settings.words // 4, settings.words + 1, (settings.batch,), generator=generator)
    lengths[0] = settings.words
    mask = torch.arange(settings.words) < lengths[:, None]
    end = config.text_config.eos_token_id
    tokens = torch.randint(3, end, mask.shape, generator=generator).masked_fill(~mask, 0)
    batch = {
        "input_ids": tokens.scatter(1, lengths[:, None] - 1, end),
        "attention_mask": mask.long(),
        "video_ids": torch.arange(settings.batch),
    }
    for prefix in ("", "second_")[:views]:
        size = (*shape, 3, settings.image_size, settings.image_size)
        pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
        batch |= {f"{prefix}pixel_values_videos": pixels, f"{prefix}video_mask": torch.ones(shape, dtype=torch.bool)}
    return {name: tensor.to(settings.device) for name, tensor in batch.items()}


def towers(settings: Settings, watch: Stopwatch) -> Callable[[], Any]:
    """Forward and backward of CLIP's towers, and nothing else that can be left out."""
    encoder: Any = MeanPooledCLIP(new_model(settings))
    batch = new_batch(settings, views=1)
    dtype = getattr(torch, settings.dtype)
    batch["pixel_values_videos"] = batch["pixel_values_videos"].to(dtype) / 255
    watched(encoder, watch, settings)
    if settings.compile:
        encoder = torch.compile(encoder)

    def step() -> torch.Tensor:
        encoder.zero_grad()
        with torch.autocast(watch.device.type, dtype, enabled=dtype != torch.float32):
            loss = info_nce(*encoder(batch))
        watch.lap("objective")
        loss.backward()
        watch.lap("backward")
        return loss.detach()

    return step


def mean_pooled(settings: Settings, watch: Stopwatch) -> Callable[[], Any]:
    """A whole training step of mean-pooled CLIP."""
    accelerator, encoder, optimizer, schedule = prepared(MeanPooledCLIP(new_model(settings)), settings, watch)
    batch = new_batch(settings, views=1)

    def step() -> torch.Tensor:
        loss = info_nce(*encoder(batch))
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss.detach()

    return step


def hcmi_one_view(settings: Settings, watch: Stopwatch) -> Callable[[], Any]:
    """A whole training step of HCMI without label denoising."""
    return _hcmi(settings, watch, views=1)


def hcmi(settings: Settings, watch: Stopwatch) -> Callable[[], Any]:
    """A whole training step of HCMI, as `hcmi train` takes it."""
    return _hcmi(settings, watch, views=2)


def _hcmi(settings: Settings, watch: Stopwatch, views: int) -> Callable[[], Any]:
    model = new_model(settings)
    accelerator, encoder, optimizer, schedule = prepared(PairEncoder(model), settings, watch)
    step = TrainingStep(accelerator, encoder, optimizer, schedule, model.config, chunk_size=settings.chunk_size)
    batch = new_batch(settings, views)
    return lambda: step(batch).loss


def prepared(encoder: nn.Module, settings: Settings, watch: Stopwatch) -> tuple[Any, Any, Any, Any]:
    """Accelerator, and what it made of the encoder, AdamW and the schedule."""
    accelerator = WatchedAccelerator(
        cpu=settings.on_cpu,
        mixed_precision="bf16" if settings.dtype == "bfloat16" else "no",
        dynamo_backend="inductor" if settings.compile else "no",
    )
    accelerator.watch = watch
    watched(encoder, watch, settings)
    parameters = encoder.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=1e-7, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, fused=True)
    optimizer.register_step_post_hook(lambda *_: watch.lap("optimizer"))
    return (accelerator, *accelerator.prepare(encoder, optimizer, get_constant_schedule(optimizer)))


def watched(encoder: nn.Module, watch: Stopwatch, settings: Settings) -> None:
    """The forward by its modules; compiled it has none any more."""
    names = {"vision_model": "video tower", "text_model": "text tower"}
    names |= {"video_hierarchy": "hierarchy", "text_hierarchy": "hierarchy"}
    for name, module in encoder.named_modules():
        if not settings.compile and name.rpartition(".")[2] in names:
            watch.watch(module, names[name.rpartition(".")[2]])


WAYS = {
    "towers alone": towers,
    "mean-pooled CLIP": mean_pooled,
    "HCMI, one view": hcmi_one_view,
    "HCMI": hcmi,
}
