import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessor
from videos import photograph

from hcmi.processing.frame_resizing import FrameSettings, normalize_frames, resize_frames

# Not every processor of transformers takes the same; these are CLIP's own and what else one meets in checkpoints.
SETTINGS = {
    "CLIP": {},
    "small": {"size": {"shortest_edge": 32}, "crop_size": 32},
    "bilinear": {"resample": 2, "size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 48}},
    "fixed size": {"size": {"height": 48, "width": 40}, "do_center_crop": False},
    "no crop": {"size": {"shortest_edge": 50}, "do_center_crop": False},
}
SIZES = [(240, 320), (320, 240), (37, 65), (100, 500), (64, 64), (33, 32)]


def as_frame(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def stock(processor, pixels: np.ndarray, **options) -> torch.Tensor:
    return processor(pixels, return_tensors="pt", **options)["pixel_values"][0]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("size", SIZES)
def test_frames_come_within_two_levels_of_the_stock_image_processor(name, size):
    processor, pixels = CLIPImageProcessor(**SETTINGS[name]), photograph(*size)
    expected = stock(processor, pixels, do_rescale=False, do_normalize=False)
    frame = resize_frames(as_frame(pixels), FrameSettings.of(processor))
    assert frame.dtype == torch.uint8
    assert frame.shape == expected.shape
    difference = (frame.int() - expected.int()).abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() <= 0.1
    assert (difference > 1).float().mean() <= 1e-4


@pytest.mark.parametrize("crop", [(64, 64), (63, 31), (70, 64), (71, 91), (90, 30), (31, 90), (200, 201)])
@pytest.mark.parametrize("size", [(64, 64), (37, 65), (64, 90)])
def test_without_resizing_frames_are_exactly_the_stock_ones(size, crop):
    processor = CLIPImageProcessor(do_resize=False, crop_size={"height": crop[0], "width": crop[1]})
    pixels = photograph(*size)
    expected = stock(processor, pixels, do_rescale=False, do_normalize=False)
    frame = resize_frames(as_frame(pixels), FrameSettings.of(processor))
    assert torch.equal(frame.int(), expected.int())


def test_a_frame_that_has_the_size_is_not_resampled():
    frame = as_frame(photograph(32, 50))
    resized = resize_frames(frame, FrameSettings.of(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)))
    assert torch.equal(resized, frame[:, :, 9:41])


def test_a_batch_of_frames_is_its_frames_one_by_one():
    settings = FrameSettings.of(CLIPImageProcessor(**SETTINGS["small"]))
    frames = torch.stack([as_frame(photograph(40, 60, seed)) for seed in range(6)]).view(2, 3, 3, 40, 60)
    together = resize_frames(frames, settings)
    assert together.shape == (2, 3, 3, 32, 32)
    for row in range(2):
        for column in range(3):
            assert torch.equal(together[row, column], resize_frames(frames[row, column], settings))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 128, "image_mean": 0.5, "image_std": 0.5},
    ],
)
def test_normalisation_is_the_stock_one(options):
    pixels = photograph(32, 32)
    settings = FrameSettings.of(CLIPImageProcessor(**options))
    ours = normalize_frames(as_frame(pixels), settings)
    lists = {
        name: [value] * 3 if name.startswith("image_") and isinstance(value, float) else value
        for name, value in options.items()
    }
    expected = stock(CLIPImageProcessor(**lists), pixels, do_resize=False, do_center_crop=False)
    torch.testing.assert_close(ours, expected.float(), rtol=0, atol=1e-5)


def test_options_of_a_call_go_before_the_processors_own():
    processor = CLIPImageProcessor()
    settings = FrameSettings.of(processor, {"size": {"shortest_edge": 20}, "crop_size": 16, "do_rescale": None})
    assert (settings.shortest_edge, settings.crop) == (20, (16, 16))
    assert settings.scale == pytest.approx(1 / 255)
    assert FrameSettings.of(processor) == FrameSettings.of(processor, {})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"do_pad": True}, "image processor's do_pad: not supported"),
        ({"do_reduce_labels": True, "size_divisor": 32}, "do_reduce_labels, size_divisor"),
        ({"resample": 0}, "resample=0"),
        ({"size": {"longest_edge": 224}}, "size=.*longest_edge"),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}}, "size=.*longest_edge"),
        ({"crop_size": {"shortest_edge": 224}}, "crop_size="),
        ({"image_mean": [0.5, 0.5]}, "image_mean=.*three channels"),
        ({"image_std": [0.5]}, "image_std=.*three channels"),
    ],
)
def test_settings_that_frames_do_not_support_are_refused_by_name(overrides, message):
    with pytest.raises(ValueError, match=message):
        FrameSettings.of(CLIPImageProcessor(), overrides)


def test_a_processor_that_does_more_is_refused():
    processor = CLIPImageProcessor()
    processor.do_pad = True
    with pytest.raises(ValueError, match="do_pad"):
        FrameSettings.of(processor)


def test_a_setting_that_is_switched_off_is_no_obstacle():
    assert FrameSettings.of(CLIPImageProcessor(), {"do_pad": False}) == FrameSettings.of(CLIPImageProcessor())
