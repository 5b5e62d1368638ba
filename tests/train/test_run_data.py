from pathlib import Path

import pytest
from training_runs import steps

from hcmi.processing import VideoReadError
from hcmi.train import run_data
from hcmi.train.data.shape_stories import load_shape_stories, write_shape_stories

FRAMES = [
    {"candidate_frames": 0, "frame_store": "none"},
    {"candidate_frames": 8, "frame_store": "none"},
    {"candidate_frames": 8, "frame_store": "raw"},
]


@pytest.mark.parametrize("frames", FRAMES[::2])
def test_worker_processes_change_nothing(run, tmp_path, frames):
    alone, helped = (run(tmp_path / str(n), epochs=1, num_workers=n, **frames) for n in (0, 2))
    assert steps(alone) == steps(helped)
    assert alone.result["levels"] == helped.result["levels"]


def test_kept_frames_train_as_the_videos_do(run, tmp_path):
    decoded, raw, jpeg = (
        run(tmp_path / store, epochs=1, candidate_frames=8, frame_store=store, frame_folder=folder)
        for store, folder in (("none", None), ("raw", str(tmp_path / "frames")), ("jpeg", str(tmp_path / "frames")))
    )
    assert steps(raw) == steps(decoded)
    assert raw.result["levels"] == decoded.result["levels"]
    assert steps(jpeg) != steps(decoded)
    for record, expected in zip(steps(jpeg), steps(decoded), strict=True):
        assert record["loss"] == pytest.approx(expected["loss"], rel=0.02)


def test_a_batch_larger_than_the_split_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size \(33\) exceeds the number of training pairs \(32\)"):
        run(tmp_path / "run", batch_size=33)
    assert run(tmp_path / "whole", batch_size=32, epochs=1).result["training"]["steps"] == 1


@pytest.mark.parametrize("words", [2, 41])
def test_impossible_text_lengths_are_refused_before_anything_is_decoded(run, tmp_path, monkeypatch, words):
    monkeypatch.setattr(run_data, "prepare_frames", lambda *_, **__: pytest.fail("decoded first"))
    with pytest.raises(ValueError, match=rf"max_words must lie in 3\.\.40 for this model, not {words}"):
        run(tmp_path, max_words=words)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("frames", FRAMES)
def test_an_unreadable_video_is_named(run, tmp_path, workers, frames):
    sizes = {"train": 9, "validation": 2, "test": 2}
    folder = write_shape_stories(tmp_path / "data", sizes=sizes, workers=1, progress=False)
    broken = load_shape_stories(folder, "train")[5]
    Path(broken["video"]).write_bytes(b"no video")
    options = {"annotations": str(folder), "num_workers": workers, "batch_size": 9} | frames
    with pytest.raises(VideoReadError, match=broken["video_id"]):
        run(tmp_path / "run", **options)


@pytest.mark.parametrize(("choose", "videos", "held_out"), [("validation", 24, 8), ("last", 32, 0)])
def test_videos_that_choose_the_model_do_not_train_it(run, batches, monkeypatch, tmp_path, choose, videos, held_out):
    # As in MSR-VTT, whose official validation videos lie inside the training lists of 1k-A.
    real = run_data.load_benchmark

    def load_benchmark(name, split, **places):
        if split != "validation":
            return real(name, split, **places)
        return real(name, "train", **places).select(range(3, 32, 4))

    monkeypatch.setattr(run_data, "load_benchmark", load_benchmark)
    outcome = run(tmp_path, epochs=1, choose=choose)
    assert (outcome.result["training"]["videos"], outcome.result["training"]["held_out"]) == (videos, held_out)
    assert sorted(row for rows, _ in batches for row in rows) == list(range(videos))
