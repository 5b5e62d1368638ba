import ast
import json
import os
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_hcmi import SIZE, tiny_model, tiny_tokenizer
from transformers import AutoTokenizer, CLIPImageProcessor
from videos import VideoOf, decode_everything, picture, shown_at

import hcmi.processing
from hcmi.processing import HCMIProcessor, VideoReadError
from hcmi.processing.frame_sampling import segment_times
from hcmi.processing.processing_hcmi import HCMIProcessorKwargs

CLIPS, TOKENIZER = os.environ.get("HCMI_CLIPS"), os.environ.get("HCMI_TOKENIZER")
FRAMES = 6
VIDEO_OUTPUTS = {"pixel_values_videos", "video_mask", "timestamps", "video_spans"}


@pytest.fixture(scope="module")
def processor() -> HCMIProcessor:
    pictures = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return HCMIProcessor(pictures, tiny_tokenizer(), frames_per_video=FRAMES)


def frames(count: int, size: tuple[int, int] = (32, 24)) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture(number, size)).permute(2, 0, 1) for number in range(count)])


# What comes out


def test_texts_and_videos(processor, h264):
    batch = processor(text=["a ring", "two squares grow"], videos=[h264, h264, frames(3)], return_tensors="pt")
    assert set(batch) == {"input_ids", "attention_mask"} | VIDEO_OUTPUTS
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 2 + len("twosquaresgrow"))
    assert batch["pixel_values_videos"].shape == (3, FRAMES, 3, SIZE, SIZE)
    assert batch["pixel_values_videos"].dtype == torch.float32
    assert batch["video_mask"].dtype == torch.bool
    assert batch["video_mask"].sum(1).tolist() == [6, 6, 3]
    assert batch["timestamps"].dtype == batch["video_spans"].dtype == torch.float64
    assert batch["timestamps"].shape == (3, FRAMES)
    torch.testing.assert_close(batch["video_spans"], torch.tensor([[0, 2.4], [0, 2.4], [0, 3]], dtype=torch.float64))


def test_text_alone_and_videos_alone(processor, h264):
    assert set(processor(text=["a ring"], return_tensors="pt")) == {"input_ids", "attention_mask"}
    assert set(processor(videos=[h264], return_tensors="pt")) == VIDEO_OUTPUTS
    assert set(processor.model_input_names) == {"input_ids", "attention_mask"} | VIDEO_OUTPUTS
    with pytest.raises(ValueError, match="at least one input"):
        processor()


def test_single_items_are_batches_of_one(processor, h264):
    together = processor(text=["a ring"], videos=[h264], return_tensors="pt")
    alone = processor(text="a ring", videos=h264, return_tensors="pt")
    for name in together:
        assert torch.equal(alone[name], together[name])


def test_frames_are_those_in_the_middle_of_equal_segments(processor, h264):
    everything = decode_everything(h264)
    batch = processor(videos=[h264], uint8=True, return_tensors="pt")
    expected = [shown_at(everything, time) for time in segment_times(0.0, 2.4, FRAMES)]
    assert batch["timestamps"][0].tolist() == pytest.approx([time for time, _ in expected])
    resized = processor.resize_frames(torch.stack([frame for _, frame in expected]))
    assert torch.equal(batch["pixel_values_videos"][0], resized)


def test_frames_are_the_stock_image_processors(processor, h264):
    """Within two of 255 levels where frames are resized, exactly where they only are cropped."""
    shown = [shown_at(decode_everything(h264), time)[1] for time in segment_times(0.0, 2.4, FRAMES)]
    expected = processor.image_processor([frame.permute(1, 2, 0).numpy() for frame in shown], return_tensors="pt")
    pixels = processor(videos=[h264], return_tensors="pt")["pixel_values_videos"][0]
    level = 1 / 255 / min(processor.image_processor.image_std)
    assert (pixels - expected["pixel_values"]).abs().max() <= 2.001 * level

    expected = processor.image_processor(
        [frame.permute(1, 2, 0).numpy() for frame in shown], do_resize=False, return_tensors="pt"
    )
    pixels = processor(videos=[h264], do_resize=False, return_tensors="pt")["pixel_values_videos"][0]
    torch.testing.assert_close(pixels, expected["pixel_values"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["path", "string", "URL", "bytes", "file", "dict"])
def test_sources_of_a_file(processor, h264, kind):
    expected = processor(videos=h264, return_tensors="pt")
    with h264.open("rb") as opened:
        video = {
            "path": h264,
            "string": str(h264),
            "URL": h264.as_uri(),
            "bytes": h264.read_bytes(),
            "file": opened,
            "dict": {"path": str(h264), "bytes": None},
        }[kind]
        for given in (video, [video]):
            batch = processor(videos=given, return_tensors="pt")
            assert torch.equal(batch["pixel_values_videos"], expected["pixel_values_videos"])


def test_values_of_a_datasets_video_column(processor, h264):
    import datasets

    rows = datasets.Dataset.from_dict({"video": [str(h264)] * 2}).cast_column("video", datasets.Video(decode=False))
    batch = processor(videos=rows["video"][:], return_tensors="pt")
    expected = processor(videos=[h264, h264], return_tensors="pt")
    assert torch.equal(batch["pixel_values_videos"], expected["pixel_values_videos"])


VIDEOS = torch.stack([frames(4), frames(4).flip(0)])
BATCHES = {
    "(B, F, 3, H, W) tensor": VIDEOS,
    "(B, F, H, W, 3) array": VIDEOS.permute(0, 1, 3, 4, 2).numpy(),
    "float tensor": VIDEOS.double() / 255,
    "list of tensors": list(VIDEOS),
    "list of arrays": list(VIDEOS.permute(0, 1, 3, 4, 2).numpy()),
    "list of lists of images": [[Image.fromarray(f.numpy()) for f in video.permute(0, 2, 3, 1)] for video in VIDEOS],
    "list of lists of tensors": [list(video) for video in VIDEOS],
    "tuple": tuple(VIDEOS),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_frames(processor, name):
    batch = processor(videos=BATCHES[name], num_frames=4, uint8=True, return_tensors="pt")
    assert torch.equal(batch["pixel_values_videos"], processor.resize_frames(VIDEOS))
    assert batch["video_mask"].all()


@pytest.mark.parametrize("video", [VIDEOS[0], list(VIDEOS[0]), BATCHES["list of lists of images"][0]])
def test_a_single_video_given_as_frames(processor, video):
    batch = processor(videos=video, num_frames=4, uint8=True, return_tensors="pt")
    assert torch.equal(batch["pixel_values_videos"], processor.resize_frames(VIDEOS[:1]))


def test_frames_of_several_sizes_and_sources_in_one_batch(processor, h264, video_of: VideoOf):
    images = [Image.fromarray(picture(n, size)) for n, size in enumerate([(32, 24), (50, 80), (16, 16)])]
    batch = processor(videos=[h264, images, video_of("mjpeg odd size"), frames(2)], return_tensors="pt")
    assert batch["pixel_values_videos"].shape == (4, FRAMES, 3, SIZE, SIZE)
    assert batch["video_mask"].sum(1).tolist() == [6, 3, 6, 2]


# Padding


def test_a_short_clip_is_padded_and_masked_never_repeated(processor):
    batch = processor(videos=frames(4), num_frames=9, return_tensors="pt")
    real = torch.arange(9) < 4
    assert torch.equal(batch["video_mask"][0], real)
    assert batch["timestamps"][0, :4].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert batch["timestamps"][0, 4:].isnan().all()
    assert (batch["pixel_values_videos"][0, 4:] == 0).all()
    alone = processor(videos=frames(4), num_frames=4, return_tensors="pt")
    assert torch.equal(batch["pixel_values_videos"][0, :4], alone["pixel_values_videos"][0])
    raw = processor(videos=frames(4), num_frames=9, uint8=True, return_tensors="pt")
    assert (raw["pixel_values_videos"][0, 4:] == 0).all()


def test_a_stretch_with_few_frames_is_padded_too(processor, h264):
    batch = processor(videos=h264, start=1.0, end=1.1, return_tensors="pt")
    assert batch["timestamps"][0, :3].tolist() == pytest.approx([1.0, 1.04, 1.08])
    assert batch["video_mask"][0].tolist() == [True] * 3 + [False] * 3
    assert batch["video_spans"].tolist() == [[1.0, 1.1]]


def test_one_frame_is_enough(processor):
    batch = processor(videos=frames(1), sampling="random", return_tensors="pt")
    assert batch["video_mask"].tolist() == [[True] + [False] * 5]
    assert batch["video_spans"].tolist() == [[0.0, 1.0]]


# Sampling


def random_times(processor, video, **options) -> torch.Tensor:
    return processor(videos=video, sampling="random", return_tensors="pt", **options)["timestamps"]


def test_random_sampling_takes_one_frame_of_each_segment(processor, video_of: VideoOf):
    long = video_of("h264 long groups")
    for seed in range(5):
        times = random_times(processor, long, seed=seed)[0].tolist()
        assert all(16 / 6 * k - 0.04 <= time < 16 / 6 * (k + 1) for k, time in enumerate(times))


def test_a_seed_repeats_a_draw_and_videos_draw_for_themselves(processor, video_of: VideoOf):
    video = video_of("h264 long groups")
    times = random_times(processor, [video] * 3, seed=1)
    assert torch.equal(times, random_times(processor, [video] * 3, seed=1))
    assert not torch.equal(times, random_times(processor, [video] * 3, seed=2))
    assert len({tuple(row) for row in times.tolist()}) == 3
    assert not torch.equal(random_times(processor, video), random_times(processor, video))


def test_a_list_of_seeds_is_one_for_each_video_wherever_it_stands(processor, video_of: VideoOf):
    video = video_of("h264 long groups")
    times = random_times(processor, [video] * 3, seed=[7, 8, 7])
    assert torch.equal(times[0], times[2])
    assert not torch.equal(times[0], times[1])
    assert torch.equal(random_times(processor, [video], seed=[8])[0], times[1])
    unseeded = random_times(processor, [video] * 2, seed=[None, 8])
    assert torch.equal(unseeded[1], times[1])


def test_two_views_are_independent_draws_out_of_one_decoding(processor, video_of: VideoOf, monkeypatch):
    calls = []
    original = hcmi.processing.processing_hcmi.read_frames

    def counting(*arguments, **options):
        calls.append(arguments[0])
        return original(*arguments, **options)

    monkeypatch.setattr(hcmi.processing.processing_hcmi, "read_frames", counting)
    video = video_of("h264 long groups")
    batch = processor(videos=[video, frames(4)], sampling="random", views=2, seed=3, return_tensors="pt")
    assert len(calls) == 2  # one for each video
    names = {"second_pixel_values_videos", "second_video_mask", "second_timestamps"}
    assert set(batch) == VIDEO_OUTPUTS | names
    for name in names:
        assert batch[name].shape == batch[name.removeprefix("second_")].shape
    first, second = batch["timestamps"][0], batch["second_timestamps"][0]
    assert not torch.equal(first, second)
    everything = decode_everything(video)
    for times, pixels in ((first, "pixel_values_videos"), (second, "second_pixel_values_videos")):
        shown = torch.stack([shown_at(everything, time + 1e-4)[1] for time in times.tolist()])
        raw = processor(videos=shown, uint8=False, num_frames=FRAMES, return_tensors="pt")
        assert torch.equal(batch[pixels][0], raw["pixel_values_videos"][0])
    # The first view is what one view alone would be.
    assert torch.equal(random_times(processor, [video, frames(4)], seed=3)[0], first)
    # Each view of a short clip is masked for itself.
    for prefix in ("", "second_"):
        mask = batch[f"{prefix}video_mask"][1]
        assert 1 <= mask.sum() <= 4
        assert torch.equal(batch[f"{prefix}timestamps"][1].isnan(), ~mask)


def test_two_uniform_views_are_the_same(processor, h264):
    batch = processor(videos=h264, views=2, return_tensors="pt")
    assert torch.equal(batch["pixel_values_videos"], batch["second_pixel_values_videos"])


def test_start_and_end_for_all_or_for_each(processor, h264):
    batch = processor(videos=[h264, h264], start=0.4, end=2.0, return_tensors="pt")
    assert batch["video_spans"].tolist() == [[0.4, 2.0]] * 2
    batch = processor(videos=[h264, h264], start=[0.4, None], end=[None, 1], return_tensors="pt")
    assert batch["video_spans"].tolist() == [pytest.approx([0.4, 2.4]), [0.0, 1.0]]
    assert (batch["timestamps"][1] < 1.0).all()


def test_frames_a_second_of_videos_given_as_frames(processor):
    batch = processor(videos=[frames(6), frames(3)], input_fps=[3, 1.5], return_tensors="pt")
    assert batch["video_spans"].tolist() == [[0.0, 2.0], [0.0, 2.0]]
    assert batch["timestamps"][0].tolist() == pytest.approx([k / 3 for k in range(6)])
    assert processor(videos=frames(6), input_fps=2, return_tensors="pt")["video_spans"].tolist() == [[0.0, 3.0]]


def test_number_of_frames(processor, h264):
    assert processor(videos=h264, num_frames=9, return_tensors="pt")["pixel_values_videos"].shape[1] == 9
    assert processor(videos=h264, num_frames=1, return_tensors="pt")["timestamps"].tolist() == [[pytest.approx(1.2)]]


# Pixels


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


# What cannot be


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


# Text


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


# Saving and travelling


def test_saving_and_loading_keeps_everything(processor, h264, tmp_path):
    changed = HCMIProcessor(
        processor.image_processor, processor.tokenizer, frames_per_video=5, max_frame_pixels=10**6, max_duration=60.0
    )
    changed.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["processor_class"] == "HCMIProcessor"
    loaded = HCMIProcessor.from_pretrained(tmp_path)
    assert (loaded.frames_per_video, loaded.max_frame_pixels, loaded.max_duration) == (5, 10**6, 60.0)
    expected = changed(text=["a ring"], videos=h264, return_tensors="pt")
    batch = loaded(text=["a ring"], videos=h264, return_tensors="pt")
    for name in expected:
        torch.testing.assert_close(batch[name], expected[name], rtol=0, atol=0)
    other = HCMIProcessor.from_pretrained(tmp_path, frames_per_video=3)
    assert other.frames_per_video == 3


def test_it_can_be_sent_to_another_process(processor, h264):
    copy = pickle.loads(pickle.dumps(processor))
    assert torch.equal(
        copy(videos=h264, return_tensors="pt")["pixel_values_videos"],
        processor(videos=h264, return_tensors="pt")["pixel_values_videos"],
    )


def test_defaults_are_where_older_versions_of_transformers_look_for_them():
    """5.21 and 5.22 read `_defaults` without asking whether it is there."""
    assert HCMIProcessorKwargs._defaults["text_kwargs"] == {"padding": True, "truncation": True}


def test_the_code_can_travel_to_the_hub():
    """One flat folder, with imports of its own modules by `from .name import x` only, and none inside functions."""
    folder = Path(hcmi.processing.__file__).parent
    files = sorted(folder.glob("*.py"))
    assert not [path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"]
    modules = {path.stem for path in files}
    for path in files:
        tree = ast.parse(path.read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in imports:
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module in modules, f"{path.name}: line {node.lineno}"
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                top = {str(name).split(".")[0] for name in names}
                assert top <= sys.stdlib_module_names | {"av", "numpy", "PIL", "torch", "torchcodec", "transformers"}
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        inner = [node for function in functions for node in ast.walk(function) if node in imports]
        assert not inner, f"{path.name}: import inside a function"


@pytest.mark.skipif(not CLIPS, reason="HCMI_CLIPS names no folder of real clips")
def test_real_clips_become_one_batch(processor):
    clips = sorted(path for path in Path(str(CLIPS)).iterdir() if path.suffix in (".avi", ".mp4"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = processor(videos=clips, strict=True, uint8=True, return_tensors="pt")
    assert batch["pixel_values_videos"].shape == (len(clips), FRAMES, 3, SIZE, SIZE)
    assert batch["video_mask"].all()
    assert (batch["timestamps"].diff(dim=1) > 0).all()
    assert (batch["pixel_values_videos"].float().std(dim=(1, 2, 3, 4)) > 5).all()
