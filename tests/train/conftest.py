"""A small benchmark, a small model, and training runs of a second on them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from hub_client import point_client_at
from hub_server import serve_hub
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from hcmi.processing import HCMIProcessor
from hcmi.train import loop, step
from hcmi.train.arguments import TrainingArguments
from hcmi.train.data.shape_stories import load_shape_stories, write_shape_stories
from hcmi.train.data.tokenizer import train_tokenizer
from hcmi.train.loop import TrainingOutcome, train

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="session")
def stories(tmp_path_factory) -> Path:
    """The benchmark's folder: 32 videos to train on, 8 to validate, 8 to test."""
    sizes = {"train": 32, "validation": 8, "test": 8}
    return write_shape_stories(tmp_path_factory.mktemp("stories") / "data", sizes=sizes, workers=1, progress=False)


@pytest.fixture(scope="session")
def videos(stories):
    """The data set of the 8 test videos."""
    return load_shape_stories(stories, "test")


@pytest.fixture(scope="session")
def processor(stories) -> HCMIProcessor:
    """4 frames of 16 pixels; a tokenizer of the training captions."""
    captions = [caption for own in load_shape_stories(stories, "train")["captions"] for caption in own]
    image_processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return HCMIProcessor(image_processor, train_tokenizer(captions, vocab_size=200), frames_per_video=4)


def write_clip(folder: Path, processor: HCMIProcessor, positions: int) -> Path:
    """A random CLIP with its tokenizer and an image processor of unusual mean and deviation."""
    special = {name: getattr(processor.tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = TOWER | special | {"vocab_size": len(processor.tokenizer), "max_position_embeddings": positions}
    config = CLIPConfig(text_config=text, vision_config=TOWER | {"image_size": 16, "patch_size": 8}, projection_dim=32)
    torch.manual_seed(3)
    CLIPModel(config).save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    CLIPImageProcessor(**size, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(processor, tmp_path_factory) -> Path:
    """A random CLIP for texts of 40 tokens."""
    return write_clip(tmp_path_factory.mktemp("clip"), processor, 40)


@pytest.fixture(scope="session")
def long_clip_folder(processor, tmp_path_factory) -> Path:
    """A random CLIP for texts of 77 tokens, as the real one takes them."""
    return write_clip(tmp_path_factory.mktemp("long_clip"), processor, 77)


def write_model_config(path: Path, **tower: Any) -> Path:
    """JSON file of a model with about 60 thousand parameters."""
    fields = {
        "projection_dim": 32,
        "max_frames": 8,
        "text_config": TOWER | {"max_position_embeddings": 40} | tower,
        "vision_config": TOWER | {"image_size": 16, "patch_size": 8} | tower,
    }
    path.write_text(json.dumps(fields))
    return path


@pytest.fixture(scope="session")
def model_config(tmp_path_factory) -> Path:
    """A model without random numbers of its own."""
    return write_model_config(tmp_path_factory.mktemp("config") / "tiny.json")


@pytest.fixture(scope="session")
def dropout_config(tmp_path_factory) -> Path:
    """A model with dropout: a run that does not get its random states back shows it."""
    return write_model_config(tmp_path_factory.mktemp("config") / "dropout.json", attention_dropout=0.2)


@pytest.fixture(scope="session")
def arguments_for(stories, model_config) -> Callable[..., TrainingArguments]:
    """Output folder and fields to the arguments of a short run."""

    def make(output: Path, **fields: Any) -> TrainingArguments:
        short = {"annotations": str(stories), "model_config": str(model_config), "cpu": True, "cpu_threads": 1}
        short |= {
            "vocabulary": 200,
            "frames_per_video": 4,
            "candidate_frames": 8,
            "frame_store": "raw",
            "batch_size": 8,
            "epochs": 2,
            "epoch_over": "videos",
        }
        short |= {"learning_rate": 1e-3, "tower_learning_rate": 1e-3, "tracker": "none"}
        return TrainingArguments(output=str(output), **short | fields)

    return make


@pytest.fixture(scope="session")
def run(arguments_for) -> Callable[..., TrainingOutcome]:
    """Output folder and fields to a finished run in this process."""

    def make(output: Path, **fields: Any) -> TrainingOutcome:
        # Accelerate keeps the settings of a process's first run.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        outcome = train(arguments_for(output, **fields))
        assert outcome is not None
        return outcome

    return make


@pytest.fixture(scope="module")
def no_picture():
    """Runs draw no curves, which takes longer than such a run itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_curves", lambda *_: None)
        yield


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on this machine, which the client in this process talks to."""
    with serve_hub() as server:
        point_client_at(server, tmp_path / "home", monkeypatch)
        yield server


@pytest.fixture
def models(monkeypatch):
    """For every run, the model it trains and a copy of the weights it begins with."""
    seen = []
    real = loop.build

    def build(*args):
        model, processor = real(*args)
        seen.append((model, {name: tensor.clone() for name, tensor in model.state_dict().items()}))
        return model, processor

    monkeypatch.setattr(loop, "build", build)
    return seen


@pytest.fixture
def batches(monkeypatch):
    """For every step, the rows of its videos and whether it had a second view."""
    seen = []
    real = step.hcmi_objective

    def objective(text, video, scale, config, second, rows):
        seen.append((rows.tolist(), second is not None))
        return real(text, video, scale, config, second, rows)

    monkeypatch.setattr(step, "hcmi_objective", objective)
    return seen
