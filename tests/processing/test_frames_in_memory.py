import numpy as np
import pytest
import torch
from PIL import Image

from hcmi.processing.frames_in_memory import FramesInMemory, is_frames

FRAMES = torch.randint(0, 256, (5, 3, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LAST = FRAMES.permute(0, 2, 3, 1)
FLOATS = FRAMES.double() / 255

LAYOUTS = {
    "(F, 3, H, W) tensor": FRAMES,
    "(F, H, W, 3) tensor": LAST,
    "(F, 3, H, W) array": FRAMES.numpy(),
    "(F, H, W, 3) array": LAST.numpy(),
    "(F, H, W, 3) array, rows apart in memory": np.asfortranarray(LAST.numpy()),
    "float32 tensor": FLOATS.float(),
    "float64 array": FLOATS.numpy(),
    "float32 array, other byte order": FLOATS.numpy().astype(">f4"),
    "long double array": FLOATS.numpy().astype(np.longdouble),
    "tensor with a gradient": FLOATS.clone().requires_grad_(),
    "list of (3, H, W) tensors": list(FRAMES),
    "list of (H, W, 3) arrays": list(LAST.numpy()),
    "tuple of (H, W, 3) tensors": tuple(LAST),
    "list of PIL images": [Image.fromarray(frame) for frame in LAST.numpy()],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_frames(name):
    assert is_frames(LAYOUTS[name])
    video = FramesInMemory(LAYOUTS[name], fps=2.0)
    assert len(video) == 5
    for index, expected in enumerate(FRAMES):
        frame = video.frame(index)
        assert frame.dtype == torch.uint8
        assert torch.equal(frame, expected)
        assert video.size(index) == (10, 8)


def test_half_precision_comes_within_its_rounding():
    video = FramesInMemory(FLOATS.half(), fps=1.0)
    assert all((video.frame(i).int() - FRAMES[i].int()).abs().max() <= 1 for i in range(5))


@pytest.mark.filterwarnings("error")
def test_an_array_that_may_not_be_written_to_is_read():
    frozen = LAST.numpy().copy()
    frozen.flags.writeable = False
    assert torch.equal(FramesInMemory(frozen, 1.0).frame(3), FRAMES[3])


def test_where_both_layouts_fit_channels_are_first():
    both = torch.randint(0, 256, (2, 3, 4, 3), dtype=torch.uint8)
    assert torch.equal(FramesInMemory(both, 1.0).frame(1), both[1])
    assert torch.equal(FramesInMemory(both.numpy(), 1.0).frame(1), both[1])


def test_images_of_every_mode_and_size_become_rgb():
    grey, transparent, palette = (
        Image.new("L", (4, 6), 99),
        Image.new("RGBA", (7, 5), (1, 2, 3, 4)),
        Image.new("P", (3, 3)),
    )
    video = FramesInMemory([grey, transparent, palette], 1.0)
    assert [tuple(video.frame(i).shape) for i in range(3)] == [(3, 6, 4), (3, 5, 7), (3, 3, 3)]
    assert video.frame(0).unique().tolist() == [99]
    assert video.frame(1)[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), r"layout \(F, 3, H, W\) or \(F, H, W, 3\), not \(4, 1, 8, 8\)"),
        (torch.zeros(4, 8, 8, dtype=torch.uint8), "layout"),
        (np.zeros((8, 8, 3), np.uint8), "layout"),
        (torch.zeros(4, 8, 8, 4, dtype=torch.uint8), "layout"),
        (torch.zeros(2, 4, 3, 8, 8, dtype=torch.uint8), "layout"),
        (torch.zeros(4, 3, 0, 8, dtype=torch.uint8), "layout"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "no frames"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.int64), "uint8 or floating-point, not torch.int64"),
        (np.zeros((4, 3, 8, 8), np.int32), "uint8 or floating-point, not int32"),
        (np.zeros((4, 3, 8, 8), bool), "uint8 or floating-point, not bool"),
        ([torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)], "different shapes"),
        ([torch.zeros(3, 8, 8), torch.zeros(3, 8, 8).double()], "different shapes or types"),
        ([Image.new("RGB", (8, 8)), torch.zeros(3, 8, 8)], "and of something else"),
        ([torch.zeros(3, 8, 8), Image.new("RGB", (8, 8))], "and of something else"),
    ],
)
def test_what_is_no_video_is_refused_with_the_reason(video, message):
    with pytest.raises(ValueError, match=message):
        FramesInMemory(video, 1.0)


@pytest.mark.parametrize("value", [-0.1, 1.5, 255.0, float("nan")])
def test_floats_outside_0_to_1_are_refused(value):
    frames = torch.full((2, 3, 4, 4), 0.5)
    frames[1, 2, 3, 3] = value
    video = FramesInMemory(frames, 1.0)
    assert video.frame(0).unique().tolist() == [128]
    with pytest.raises(ValueError, match="between 0 and 1"):
        video.frame(1)


def test_an_image_that_cannot_be_loaded_is_named(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(LAST[0].numpy()).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with Image.open(path) as image, pytest.raises(ValueError, match="image 1: "):
        FramesInMemory([Image.new("RGB", (8, 8)), image], 1.0).frame(1)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_frame_rates_are_refused(fps):
    with pytest.raises(ValueError, match="frames a second"):
        FramesInMemory(FRAMES, fps)


@pytest.mark.parametrize("video", ["video.mp4", b"bytes", [], ["video.mp4"], [[Image.new("RGB", (8, 8))]], None, 3])
def test_other_things_are_no_frames(video):
    assert not is_frames(video)
