import numpy as np
import pytest
import torch
from videos import RECIPES, Recipe, decode_everything, shown_at, write_video

from hcmi.processing.video_reading import VideoReadError, read_frames
from hcmi.retrieval.pictures.thumbnails import thumbnail, thumbnails


def pixels(image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_the_frame_that_is_shown_at_the_time(tmp_path):
    video = write_video(tmp_path / "a.mp4", RECIPES["h264 uneven times"])
    frames = decode_everything(video)
    times = [0.0, 0.5, frames[7][0], frames[7][0] - 1e-4, 99.0, -1.0]
    for time, image in zip(times, thumbnails(video, times, height=64), strict=True):
        assert torch.equal(pixels(image), shown_at(frames, time)[1])
        assert image == thumbnail(video, time, height=64)


def test_size_and_turning(tmp_path):
    video = write_video(tmp_path / "a.mp4", Recipe(rotation=(90, False), frames=5))
    image = thumbnail(video, 0.1)
    assert (image.mode, image.size) == ("RGB", (120, 180)), "96 x 64, upright"
    small = thumbnail(video, 0.1, height=96)
    assert torch.equal(pixels(small), read_frames(video, [0.1]).frames[0])


def test_what_has_no_thumbnail(tmp_path):
    video = write_video(tmp_path / "a.mp4", Recipe(frames=5))
    with pytest.raises(VideoReadError, match=r"gone\.mp4"):
        thumbnail(tmp_path / "gone.mp4", 0.0)
    with pytest.raises(ValueError, match="`height`"):
        thumbnail(video, 0.0, height=0)
    with pytest.raises(ValueError, match="finite"):
        thumbnail(video, float("nan"))
