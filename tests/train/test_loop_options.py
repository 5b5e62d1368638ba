"""What can be switched on in a run: chunks, accumulation, averaged weights, adapters, going on without a video."""

from pathlib import Path

import pytest
import torch
from training_runs import differing, steps, weights

from hcmi.processing import VideoReadError
from hcmi.train.data.shape_stories import load_shape_stories, write_shape_stories
from hcmi.train.step import TrainingStep


def test_chunks_change_nothing_but_memory(run, tmp_path):
    whole, chunks = (run(tmp_path / str(size), epochs=1, batch_size=16, chunk_size=size) for size in (0, 5))
    for expected, record in zip(steps(whole), steps(chunks), strict=True):
        assert record == pytest.approx(expected, rel=1e-4)


def test_accumulated_batches_are_one_update(run, monkeypatch, tmp_path):
    updates = []
    real = TrainingStep._update
    monkeypatch.setattr(TrainingStep, "_update", lambda self: updates.append(len(self._rows)) or real(self))
    outcome = run(tmp_path, epochs=2, accumulation_steps=3, checkpoint_every=1)
    # Four batches an epoch: three, and the one that is left.
    assert updates == [3, 1, 3, 1]
    assert outcome.result["training"]["steps"] == 8
    # The schedule is that of the updates: it has come to its end.
    assert steps(outcome)[-1]["learning_rate"] == pytest.approx(0, abs=1e-9)


def test_the_average_of_the_weights_is_what_is_kept(run, models, monkeypatch, tmp_path):
    plain = run(tmp_path / "plain", choose="last")
    averaged = run(tmp_path / "averaged", choose="last", ema_decay=0.5)
    assert steps(averaged) == steps(plain)
    assert not differing(weights(plain.model), models[0][0].state_dict())
    trained, kept = models[1][0].state_dict(), weights(averaged.model)
    assert len(differing(kept, trained)) > len(kept) / 2
    # Between the weights at the beginning and at the end.
    name = sorted(differing(kept, trained))[0]
    initial = models[1][1][name]
    assert (kept[name] - trained[name]).norm() < (initial - trained[name]).norm()


def test_adapters_are_folded_into_what_is_saved(run, models, clip_folder, tmp_path):
    pytest.importorskip("peft")
    outcome = run(tmp_path, epochs=1, model=str(clip_folder), model_config=None, lora_rank=2)
    saved = weights(outcome.model)
    assert not any("lora" in name for name in saved)
    changed = differing(saved, weights_of_clip(clip_folder, saved))
    attention = {name for name in saved if "tower" not in name and ".self_attn." in name and name.endswith("weight")}
    assert changed and changed <= attention | {name for name in saved if "hierarchy" in name}
    assert any(name in attention for name in changed)


def weights_of_clip(folder: Path, saved: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The checkpoint's weights, and for those that CLIP does not have the saved ones."""
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(folder).state_dict()
    return {name: clip.get(name, tensor) for name, tensor in saved.items()}


@pytest.fixture
def broken(tmp_path) -> tuple[Path, str]:
    """A benchmark with a training video that cannot be read, and the video's id."""
    sizes = {"train": 9, "validation": 2, "test": 2}
    folder = write_shape_stories(tmp_path / "data", sizes=sizes, workers=1, progress=False)
    row = load_shape_stories(folder, "train")[5]
    Path(row["video"]).write_bytes(b"no video")
    return folder, row["video_id"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_may_go_on_without_a_video_and_says_so(run, broken, tmp_path, workers):
    folder, video_id = broken
    options = {"annotations": str(folder), "batch_size": 9, "candidate_frames": 0, "frame_store": "none"}
    outcome = run(tmp_path / "run", **options, num_workers=workers, unreadable="skip")
    told = outcome.result["training"]["unreadable"]
    assert (told["policy"], told["count"], told["videos"][0]["video"]) == ("skip", 1, video_id)
    assert outcome.result["training"]["steps"] == 2
    with pytest.raises(VideoReadError, match="max_unreadable allows 0"):
        run(tmp_path / "strict", **options, num_workers=workers, unreadable="skip", max_unreadable=0)


def test_fewer_processes_than_must_take_part_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match="2"):
        run(tmp_path / "run", processes=2)
    assert not (tmp_path / "run").exists()
