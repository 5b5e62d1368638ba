import numpy as np
import pytest
import torch
from processing_batches import FRAMES, TOKENIZER, frames
from tiny_hcmi import SIZE, tiny_model, tiny_tokenizer
from transformers import AutoTokenizer, CLIPImageProcessor

from hcmi.processing import HCMIProcessor, VideoReadError


def test_uint8_frames_equal_the_float_ones_after_normalisation(processor, h264):
    floats = processor(videos=[h264, frames(4)], return_tensors="pt")
    raw = processor(videos=[h264, frames(4)], uint8=True, return_tensors="pt")
    assert raw["pixel_values_videos"].dtype == torch.uint8
    mask = floats["video_mask"]
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    normalised = (raw["pixel_values_videos"] / 255 - mean) / std
    torch.testing.assert_close(floats["pixel_values_videos"][mask], normalised[mask], rtol=0, atol=1e-5)

    seen = []
    model = tiny_model()
    model.vision_model.register_forward_pre_hook(
        lambda module, positional, named: seen.append(named.get("pixel_values", *positional)), with_kwargs=True
    )
    features = []
    with torch.no_grad():
        for batch in (floats, raw):
            features.append(model.get_video_features(batch["pixel_values_videos"], batch["video_mask"]).pooler_output)
    given, made = (pixels.view(2, FRAMES, 3, SIZE, SIZE)[mask] for pixels in seen)
    assert given.dtype == made.dtype == torch.float32
    torch.testing.assert_close(made, given, rtol=0, atol=1e-5)
    torch.testing.assert_close(*features, rtol=0, atol=1e-5)


def test_options_of_the_image_processor_hold_for_frames(processor, h264):
    batch = processor(videos=h264, size={"shortest_edge": 24}, crop_size=20, do_normalize=False, return_tensors="pt")
    pixels = batch["pixel_values_videos"]
    assert pixels.shape == (1, FRAMES, 3, 20, 20)
    assert 0 <= pixels.min() < pixels.max() <= 1
    nested = processor(videos=h264, videos_kwargs={"crop_size": 8, "num_frames": 2}, return_tensors="pt")
    assert nested["pixel_values_videos"].shape == (1, 2, 3, 8, 8)


def test_an_image_processor_that_does_something_else_is_refused(h264):
    pictures = CLIPImageProcessor()
    pictures.do_pad = True
    with pytest.raises(ValueError, match="do_pad"):
        HCMIProcessor(pictures, tiny_tokenizer())(videos=h264)


def test_resize_frames_of_any_shape(processor):
    video = frames(4, (50, 30))
    assert processor.resize_frames(video).shape == (4, 3, SIZE, SIZE)
    assert torch.equal(processor.resize_frames(video[1]), processor.resize_frames(video)[1])
    assert processor.resize_frames(video, crop_size=5).shape == (4, 3, 5, 5)


@pytest.mark.parametrize("kind", ["np", None])
def test_other_kinds_of_tensors(processor, kind):
    batch = processor(text=["a ring", "a square"], videos=frames(4), return_tensors=kind)
    pixels = np.asarray(batch["pixel_values_videos"])
    assert pixels.shape == (1, FRAMES, 3, SIZE, SIZE)
    assert len(batch["input_ids"]) == 2
    assert processor(text="a ring", return_tensors=kind)["input_ids"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 3}, "views must be 1 or 2, not 3"),
        ({"views": 0}, "views must be 1 or 2, not 0"),
        ({"num_frames": 0}, "num_frames must be at least 1, not 0"),
        ({"start": [0.0, 0.0]}, "start has 2 values for 1 videos"),
        ({"end": []}, "end has 0 values for 1 videos"),
        ({"seed": [1, 2], "sampling": "random"}, "seed has 2 values for 1 videos"),
        ({"start": 2.0, "end": 1.0}, "not before"),
        ({"start": 5.0}, "it lasts from 0 s to 2.4 s"),
    ],
)
def test_options_that_do_not_fit_are_refused(processor, h264, options, message):
    with pytest.raises(ValueError, match=message):
        processor(videos=[h264], **options)


@pytest.mark.parametrize(
    "options", [{"sampling": "first"}, {"seed": "a"}, {"video_backend": "opencv"}, {"uint8": "yes"}, {"start": "0"}]
)
def test_options_of_a_wrong_type_are_refused_by_name(processor, h264, options):
    with pytest.raises(Exception, match=next(iter(options))):
        processor(videos=[h264], **options)


def test_no_videos(processor):
    with pytest.raises(ValueError, match="videos is an empty list"):
        processor(videos=[])


def test_a_video_that_cannot_be_read_is_named(processor, h264, tmp_path):
    with pytest.raises(VideoReadError, match=r"missing.mp4: No such file"):
        processor(videos=[h264, tmp_path / "missing.mp4"])
    with pytest.raises(VideoReadError, match="layout"):
        processor(videos=torch.zeros(4, 1, 8, 8))
    with pytest.raises(VideoReadError, match="not one of"):
        processor(videos=[None])


def test_limits_of_the_processor_hold(processor, h264):
    for name, value, message in (("max_frame_pixels", 6000, "6000 pixels"), ("max_duration", 1.0, "limit of 1 s")):
        strict = HCMIProcessor(processor.image_processor, processor.tokenizer, **{name: value})
        with pytest.raises(VideoReadError, match=message):
            strict(videos=h264)


@pytest.mark.parametrize("count", [0, -1])
def test_impossible_numbers_of_frames(processor, count):
    with pytest.raises(ValueError, match="frames_per_video must be at least 1"):
        HCMIProcessor(processor.image_processor, processor.tokenizer, frames_per_video=count)


def test_a_broken_file_warns_or_raises(processor, h264, tmp_path):
    content = bytearray(h264.read_bytes())
    content[9000:12000] = bytes(3000)
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"broken.mp4: broken"):
        assert processor(videos=path, return_tensors="pt")["video_mask"].any()
    with pytest.raises(VideoReadError, match="broken"):
        processor(videos=path, strict=True)


def test_texts_are_padded_to_the_longest_and_cut_with_one_warning(processor):
    with pytest.warns(UserWarning) as caught:
        batch = processor(text=["a ring", "abcdefgh " * 5, "abcdefgh " * 4], return_tensors="pt")
    assert batch["input_ids"].shape == (3, 24)
    assert [str(warning.message) for warning in caught] == ["2 of 3 texts were cut to 24 tokens (the longest has 42)"]
    assert caught[0].filename == __file__
    assert batch["attention_mask"].sum(1).tolist() == [7, 24, 24]


@pytest.mark.filterwarnings("error")
def test_no_warning_without_a_cut(processor):
    assert processor(text=["a" * 22], return_tensors="pt")["input_ids"].shape == (1, 24)
    assert processor(text=["a" * 24], add_special_tokens=False, return_tensors="pt")["input_ids"].shape == (1, 24)
    assert len(processor(text=["a" * 40], truncation=False)["input_ids"][0]) == 42
    assert processor(text=["a b"], padding="max_length", return_tensors="pt")["input_ids"].shape == (1, 24)


def test_the_length_of_a_call_goes_before_the_tokenizers(processor):
    with pytest.warns(UserWarning, match="1 of 1 texts were cut to 8 tokens"):
        assert processor(text=["a" * 20], max_length=8, return_tensors="pt")["input_ids"].shape == (1, 8)


def test_a_tokenizer_without_a_limit_gets_clips(processor):
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = int(1e30)
    endless = HCMIProcessor(processor.image_processor, tokenizer)
    with pytest.warns(UserWarning, match="1 of 2 texts were cut to 77 tokens"):
        batch = endless(text=["a" * 100, "a"], return_tensors="pt")
    assert batch["input_ids"].shape == (2, 77)
    with pytest.warns(UserWarning, match="1 of 1 texts were cut to 90 tokens"):
        assert len(endless(text=["a" * 100], max_length=90)["input_ids"][0]) == 90


@pytest.mark.skipif(not TOKENIZER, reason="HCMI_TOKENIZER names no folder with CLIP's tokenizer")
def test_clips_own_tokenizer():
    own = HCMIProcessor(CLIPImageProcessor(), AutoTokenizer.from_pretrained(str(TOKENIZER)))
    batch = own(text=["a diagram", "a diagram of a man"])
    assert batch["input_ids"][0][:4] == [49406, 320, 22697, 49407]
    with pytest.warns(UserWarning, match="cut to 77 tokens"):
        assert own(text=["dog " * 100], return_tensors="pt")["input_ids"].shape == (1, 77)
