"""What encoding reads with processes of its own; what it makes of it is in test_evaluation.py."""

import multiprocessing
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from given_features import GivenFeatures, numbered_frames, word_processor

from hcmi.processing import VideoReadError
from hcmi.train import encoding
from hcmi.train.encoding import encode_videos

NAMES = ["sea", "hill", "town", "wood", "lake"]


@pytest.fixture(scope="module")
def model():
    given = GivenFeatures(word_processor().tokenizer, {}, torch.eye(5, 16))
    given.eval()
    return given


def encoded(model, source=numbered_frames, **options):
    return encode_videos(model, source, NAMES, batch_size=2, show_progress=False, **options)


def dies_at(bad):
    def source(row):
        if row == bad:
            os.kill(os.getpid(), signal.SIGKILL)
        return numbered_frames(row)

    return source


def hangs_at(bad):
    return lambda row: time.sleep(3600) if row == bad else numbered_frames(row)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_video_is_encoded_in_its_row(model, workers):
    found = encoded(model, num_workers=workers)
    assert torch.equal(found.features.pooler_output, model.video_vectors)
    assert found.spans.tolist() == [[0.0, 4.0]] * 5 and found.timestamps.shape == (5, 4)


def test_a_reader_that_dies_is_told_with_its_video(model):
    with pytest.raises(ChildProcessError, match=r"the process that read video 'town' \(row 2\) ended"):
        encoded(model, dies_at(2), num_workers=2)


def test_a_reader_that_hangs_is_told_with_its_video(model):
    with pytest.raises(ChildProcessError, match=r"'wood' \(row 3\) was not read within 0.5 seconds"):
        encoded(model, hangs_at(3), num_workers=2, reader_timeout=0.5)


def test_the_limit_is_for_one_video(model):
    def slowly(row):
        time.sleep(0.4)
        return numbered_frames(row)

    assert len(encoded(model, slowly, num_workers=1, reader_timeout=1.2).spans) == 5


def test_after_an_unreadable_video_no_reader_is_left(model):
    def source(row):
        if row == 1:
            raise VideoReadError("hill.mp4", "it is empty")
        return numbered_frames(row)

    with pytest.raises(VideoReadError, match=r"'hill' \(row 1\)"):
        encoded(model, source, num_workers=2)
    for process in multiprocessing.active_children():
        process.join(30)
        assert process.exitcode is not None


def test_all_processes_hear_of_a_reader_that_died_in_one(model, monkeypatch):
    handed, outcomes, barrier = {}, {}, threading.Barrier(2, timeout=60)

    def gather_object(own):
        handed[threading.current_thread().name] = own
        barrier.wait()
        return [*handed["0"], *handed["1"]]

    def work(rank):
        accelerator = SimpleNamespace(process_index=rank, num_processes=2, is_main_process=False)
        try:
            encoded(model, dies_at(4), num_workers=rank, accelerator=accelerator)
        except ChildProcessError as error:
            outcomes[rank] = str(error)

    monkeypatch.setattr(encoding, "gather_object", gather_object)
    threads = [threading.Thread(target=work, args=(rank,), name=str(rank)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes[0] == outcomes[1] and "'lake' (row 4) ended" in outcomes[0]
