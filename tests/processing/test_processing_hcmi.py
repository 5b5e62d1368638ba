import ast
import json
import pickle
import sys
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from processing_batches import CLIPS, FRAMES, VIDEO_OUTPUTS, frames
from tiny_hcmi import SIZE
from videos import VideoOf, decode_everything, picture, shown_at

import hcmi.processing
from hcmi.processing import HCMIProcessor
from hcmi.processing.frame_sampling import segment_times
from hcmi.processing.processing_hcmi import HCMIProcessorKwargs


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
