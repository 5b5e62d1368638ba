import pytest
import torch
from processing_batches import FRAMES, VIDEO_OUTPUTS, frames
from videos import VideoOf, decode_everything, shown_at

import hcmi.processing


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
