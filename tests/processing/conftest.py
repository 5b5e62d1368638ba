"""Video files for the tests of this folder, each made once, and a processor."""

from pathlib import Path

import pytest
from processing_batches import FRAMES
from tiny_hcmi import SIZE, tiny_tokenizer
from transformers import CLIPImageProcessor
from videos import RECIPES, VideoOf, write_video

from hcmi.processing import HCMIProcessor


@pytest.fixture(scope="session")
def video_of(tmp_path_factory: pytest.TempPathFactory) -> VideoOf:
    """The file of a recipe in `videos.RECIPES`, by its name."""
    folder = tmp_path_factory.mktemp("videos")

    def make(name: str) -> Path:
        path = folder / (name.replace(" ", "_") + RECIPES[name].suffix)
        return path if path.exists() else write_video(path, RECIPES[name])

    return make


@pytest.fixture(scope="session")
def h264(video_of: VideoOf) -> Path:
    """60 frames of 96 x 64 at 25 frames a second, in groups of 20 with B frames."""
    return video_of("h264")


@pytest.fixture(scope="module")
def processor() -> HCMIProcessor:
    """Of the tiny model's size, with 6 frames a video."""
    pictures = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return HCMIProcessor(pictures, tiny_tokenizer(), frames_per_video=FRAMES)
