import av
import pytest
import torch

from hcmi.processing import VideoReadError
from hcmi.processing.frame_sampling import segment_times
from hcmi.train.data import row_reading
from hcmi.train.data.candidates import DecodedCandidates, PreparedCandidates
from hcmi.train.data.frame_sources import CandidateFrames, FileFrames
from hcmi.train.data.pairs import TrainingPairs
from hcmi.train.data.prepared_frames import prepare_frames


def every_frame(video, processor):
    """All frames of a file, resized, by the time in seconds at which they begin."""
    with av.open(video) as container:
        stream = container.streams.video[0]
        decoded = [
            (float(frame.pts * stream.time_base), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(stream)
        ]
    return {time: processor.resize_frames(torch.from_numpy(pixels).permute(2, 0, 1)) for time, pixels in decoded}


def same(first, second):
    return (
        torch.equal(first.frames, second.frames)
        and torch.equal(first.timestamps, second.timestamps)
        and first.span == second.span
    )


@pytest.fixture(scope="module")
def prepared(videos, processor, tmp_path_factory):
    """The videos with so many candidates and in that encoding."""
    folder = tmp_path_factory.mktemp("prepared")

    def prepare(count, encoding="raw"):
        return PreparedCandidates(prepare_frames(videos, processor, count, folder, encoding=encoding, progress=False))

    return prepare


@pytest.fixture(scope="module", params=["files", "decoded", "prepared"])
def source(request, videos, processor, prepared):
    """All sources; every frame of every video is a candidate."""
    if request.param == "files":
        return FileFrames(processor, videos, 4)
    return CandidateFrames(
        prepared(300) if request.param == "prepared" else DecodedCandidates(processor, videos, 300), 4
    )


@pytest.mark.parametrize("count", [4, 7, 200])
def test_the_middle_frames_are_the_processors(videos, processor, count):
    source = FileFrames(processor, videos, count)
    for row, video in enumerate(videos["video"]):
        batch = processor(videos=[video], uint8=True, num_frames=count, return_tensors="pt")
        mask = batch["video_mask"][0]
        for frames in (source.sample(row, [None])[0], source(row)):
            assert frames.frames.dtype == torch.uint8
            assert torch.equal(frames.frames, batch["pixel_values_videos"][0][mask])
            assert torch.equal(frames.timestamps, batch["timestamps"][0][mask])
            assert list(frames.span) == batch["video_spans"][0].tolist()
        assert len(frames.frames) == min(count, len(every_frame(video, processor)))


def test_a_stretch_of_a_file_is_the_processors(videos, processor):
    stretches = videos.remove_columns(["start", "end"]).select([0, 1])
    stretches = stretches.add_column("start", [0.3, None]).add_column("end", [0.9, 1.0])
    source = FileFrames(processor, stretches, 3)
    for row in range(2):
        start, end = stretches[row]["start"], stretches[row]["end"]
        batch = processor(
            videos=[videos[row]["video"]], start=start, end=end, uint8=True, num_frames=3, return_tensors="pt"
        )
        frames = source(row)
        assert torch.equal(frames.frames, batch["pixel_values_videos"][0][batch["video_mask"][0]])
        assert list(frames.span) == batch["video_spans"][0].tolist() == [start or 0.0, end]


def test_a_data_set_without_stretches_means_whole_files(videos, processor):
    bare = videos.select_columns(["video_id", "video", "captions"])
    assert same(FileFrames(processor, bare, 4)(2), FileFrames(processor, videos, 4)(2))


def test_random_views_show_one_random_moment_of_each_segment(source, videos, processor):
    for row in (0, 5):
        real = every_frame(videos[row]["video"], processor)
        seeds = [f"seed {k}" for k in range(5)]
        for seed, view in zip(seeds, source.sample(row, seeds), strict=True):
            moments = segment_times(*view.span, 4, "random", seed)
            shown = [max(time for time in real if time <= moment) for moment in moments]
            assert view.timestamps.tolist() == sorted(set(shown))
            assert all(
                torch.equal(frame, real[time]) for frame, time in zip(view.frames, sorted(set(shown)), strict=True)
            )


def test_views_repeat_by_their_seed_and_differ_between_seeds(source):
    first, second, middle = source.sample(3, ["one", "two", None])
    assert same(source.sample(3, ["one"])[0], first) and same(source.sample(3, ["two"])[0], second)
    assert same(source(3), middle)
    assert not same(first, second) and not same(first, middle)
    draws = {tuple(view.timestamps.tolist()) for view in source.sample(3, [str(k) for k in range(20)])}
    assert len(draws) > 15


@pytest.mark.parametrize("count", [3, 8, 200])
def test_with_every_frame_a_candidate_all_sources_are_the_same(videos, processor, prepared, count):
    from_files, from_prepared = FileFrames(processor, videos, count), CandidateFrames(prepared(300), count)
    for row in range(len(videos)):
        seeds = [None, f"{row} 0", f"{row} 1"]
        views = zip(from_files.sample(row, seeds), from_prepared.sample(row, seeds), strict=True)
        assert all(same(*pair) for pair in views)


@pytest.mark.parametrize("count", [3, 6, 9])
@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_prepared_candidates_give_what_decoded_ones_give(videos, processor, prepared, encoding, count):
    decoded = CandidateFrames(DecodedCandidates(processor, videos, 6), count)
    stored = CandidateFrames(prepared(6, encoding), count)
    for row in range(len(videos)):
        seeds = [None, *(f"{row} {draw}" for draw in range(4))]
        for exact, found in zip(decoded.sample(row, seeds), stored.sample(row, seeds), strict=True):
            if encoding == "raw":
                assert same(exact, found)
            else:
                assert torch.equal(exact.timestamps, found.timestamps) and exact.span == found.span
                assert 0 < (exact.frames.int() - found.frames.int()).abs().float().mean() < 3
            assert found.frames.is_contiguous() and found.frames.dtype == torch.uint8


def test_training_from_raw_frames_is_training_from_videos(videos, processor, prepared):
    sources = [CandidateFrames(candidates, 4) for candidates in (DecodedCandidates(processor, videos, 9), prepared(9))]
    for views in (1, 2):
        trainings = [TrainingPairs(videos["captions"], source, seed=7) for source in sources]
        for epoch in range(3):
            for pairs in trainings:
                pairs.begin_epoch(epoch, views)
            for first, second in zip(*trainings, strict=True):
                assert first.caption == second.caption and len(first.views) == len(second.views) == views
                assert all(same(*pair) for pair in zip(first.views, second.views, strict=True))


def test_with_few_candidates_the_one_shown_then_is_taken(videos, processor, prepared):
    stored = FileFrames(processor, videos, 6)
    view = CandidateFrames(prepared(6), 3)(0)
    assert len(view.frames) == 3 and view.span == stored(0).span
    times = stored(0).timestamps.tolist()
    width = (view.span[1] - view.span[0]) / 3
    middles = [view.span[0] + (segment + 0.5) * width for segment in range(3)]
    assert view.timestamps.tolist() == [max(time for time in times if time <= middle) for middle in middles]
    assert len(CandidateFrames(prepared(6), 8)(0).frames) == 6


def test_a_selection_of_prepared_rows_gives_those_rows(videos, prepared):
    whole = prepared(6)
    part = PreparedCandidates(whole.prepared.select([5, 2]))
    for row, original in enumerate([5, 2]):
        assert same(CandidateFrames(part, 3)(row), CandidateFrames(whole, 3)(original))


def test_all_views_of_a_file_are_decoded_in_one_pass(videos, processor, monkeypatch):
    calls = []
    real = row_reading.read_frames
    monkeypatch.setattr(row_reading, "read_frames", lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs))
    FileFrames(processor, videos, 4).sample(0, ["a", "b", None])
    assert len(calls) == 1
    CandidateFrames(DecodedCandidates(processor, videos, 9), 4).sample(0, ["a", "b", None])
    assert len(calls) == 2


def test_an_unreadable_file_is_named(videos, processor, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    dataset = videos.remove_columns("video").add_column("video", [str(broken)] * len(videos))
    with pytest.raises(VideoReadError, match=r"broken\.mp4"):
        FileFrames(processor, dataset, 4)(0)


def test_the_processors_limits_hold(videos, processor, monkeypatch):
    monkeypatch.setattr(processor, "max_frame_pixels", 100)
    with pytest.raises(VideoReadError, match="pixels"):
        FileFrames(processor, videos, 4)(0)
