"""Batches in one process and in two. Each of the two is this file, run as a script with a folder."""

import multiprocessing
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import set_seed
from processes import join, leave, run_two
from written_frames import WrittenFrames

from hcmi.processing import VideoReadError
from hcmi.train.data import loading
from hcmi.train.data.loading import TrainingBatches, make_loader, reader_count
from hcmi.train.data.pairs import PairCollator, TrainingPairs
from hcmi.train.data.unreadable import UnreadableVideos

WORDS = ("a", "red", "ring", "slides", "over", "two", "blue", "squares", "and", "grows")
# 53 videos with 1 to 3 captions of 1 to 10 words.
CAPTIONS = [[" ".join(WORDS[: 1 + (row * 7 + number * 3) % 10]) for number in range(1 + row % 3)] for row in range(53)]
NAMES = [f"video{row}" for row in range(53)]
BROKEN = (3, 17, 40)
BATCH = 32  # in parts of 8 in one process and of 2 x 8 in two


class Tokenizer:
    """A number a word; 99 is padding."""

    pad_token_id = 99

    def __call__(self, texts, **_):
        tokens = [[WORDS.index(word) for word in text.split()] for text in texts]
        longest = max(map(len, tokens))
        ids = torch.tensor([[*own, *[99] * (longest - len(own))] for own in tokens])
        return {"input_ids": ids, "attention_mask": (ids != 99).long()}


def collator():
    return PairCollator(Tokenizer(), 3, 10)


def training_pairs(**frames):
    return TrainingPairs(CAPTIONS, WrittenFrames(**frames), seed=5)


def accelerator():
    config = DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True)
    return Accelerator(cpu=True, dataloader_config=config)


def batches(num_workers=0, policy="skip", most=10, timeout=60.0, **frames):
    set_seed(1)
    unreadable = UnreadableVideos(NAMES, policy, most)
    return TrainingBatches(
        accelerator(), training_pairs(**frames), collator(), unreadable,
        batch_size=BATCH, num_workers=num_workers, timeout=timeout,
    )  # fmt: skip


def epoch_of(source, *arguments, **options):
    with source.epoch(*arguments, **options) as epoch:
        return list(epoch)


def work(folder):
    """What one of the two processes does; the tests look at what it leaves."""
    join(folder)
    found = {}
    for workers in (0, 2):
        source = batches(workers, broken=BROKEN)
        found[workers] = [epoch_of(source, 0), epoch_of(source, 1, 2), epoch_of(source, 1, 2, skip=1)]
        found[f"unreadable {workers}"] = source.unreadable.summary()
    del source
    leave(folder, found)


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the two processes found."""
    return run_two(__file__, tmp_path_factory.mktemp("processes"))


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_epoch_is_whole_batches_of_its_pairs_in_random_order():
    source, pairs = batches(), training_pairs()
    orders = []
    for epoch in (0, 1):
        pairs.begin_epoch(epoch, 2)
        own = epoch_of(source, epoch, 2)
        assert len(own) == len(source) == len(pairs) // BATCH == 3
        # Accelerate's order: a permutation from the sum of seed and epoch.
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(1 + epoch))[: 3 * BATCH].tolist()
        expected = [collator()([pairs[index] for index in order[first : first + BATCH]]) for first in (0, 32, 64)]
        assert_same(own, expected)
        orders.append(order)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("broken", [(), BROKEN])
def test_batches_do_not_depend_on_the_number_of_readers(broken):
    alone, helped = (batches(workers, broken=broken) for workers in (0, 2))
    for epoch, views in ((0, 1), (1, 2), (2, 2)):
        first, second = epoch_of(alone, epoch, views), epoch_of(helped, epoch, views)
        assert_same(first, second)
        assert ("second_video_mask" in first[0]) == (views == 2)
    assert alone.unreadable.summary() == helped.unreadable.summary()
    assert set(alone.unreadable.found) == {NAMES[row] for row in broken}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_goes_on_sees_what_is_left(workers):
    whole = epoch_of(batches(workers, broken=BROKEN), 1, 2)
    source = batches(workers, broken=BROKEN)
    assert_same(epoch_of(source, 1, 2, skip=2), whole[2:])
    assert_same(epoch_of(source, 2, 1), epoch_of(batches(broken=BROKEN), 2, 1))


def test_readers_live_for_the_run_and_end_with_their_batches():
    source = batches(2)
    readers = []
    for epoch in range(3):
        epoch_of(source, epoch)
        readers.append({process.pid for process in multiprocessing.active_children()})
    assert readers[0] == readers[1] == readers[2] and len(readers[0]) == 2
    epoch_of(source, 3, skip=1)
    assert {process.pid for process in multiprocessing.active_children()} == readers[0]
    # Accelerate keeps what it has prepared.
    source.accelerator.free_memory()
    del source
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_leaves_the_random_state_alone(workers):
    source = batches(workers)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for epoch in range(2):
        epoch_of(source, epoch, skip=epoch)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_processes_share_the_batches_of_one(found):
    source = batches(broken=BROKEN)
    alone = [epoch_of(source, 0), epoch_of(source, 1, 2), epoch_of(source, 1, 2, skip=1)]
    for workers in (0, 2):
        for epoch, whole in enumerate(alone):
            shares = [process[workers][epoch] for process in found]
            assert [len(share) for share in shares] == [len(whole)] * 2
            for batch, *halves in zip(whole, *shares, strict=True):
                assert rows(batch) == sorted(rows(halves[0]) + rows(halves[1])) and len(rows(halves[0])) == BATCH // 2


def test_each_of_two_processes_gets_the_same_whatever_its_readers(found):
    for process in found:
        for first, second in zip(process[0], process[2], strict=True):
            assert_same(first, second)


def test_both_processes_know_what_either_could_not_read(found):
    for process in found:
        for workers in (0, 2):
            summary = process[f"unreadable {workers}"]
            assert summary["count"] == 3 and summary == found[0][f"unreadable {workers}"]
            assert {entry["video"] for entry in summary["videos"]} == {NAMES[row] for row in BROKEN}


def rows(batch):
    """What identifies the rows of a batch, whatever the order: the video, its frames and the words."""
    lines = zip(batch["video_ids"], batch["pixel_values_videos"], batch["input_ids"], strict=True)
    return sorted((int(row), pixels[1, 0, 0, 0].item(), ids[ids != 99].tolist()) for row, pixels, ids in lines)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_video_is_refused_by_name(workers):
    with pytest.raises(VideoReadError, match=r"^video 'video17' \(row 17\): 17.mp4: not a video$"):
        epoch_of(batches(workers, "refuse", broken=[17]), 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_videos_end_the_run(workers):
    with pytest.raises(VideoReadError, match="3 videos cannot be read, and max_unreadable allows 2"):
        epoch_of(batches(workers, most=2, broken=BROKEN), 0)


def test_where_nothing_is_readable_the_reasons_are_told():
    with pytest.raises(VideoReadError, match=r"no readable video was found .*\.mp4: not a video"):
        epoch_of(batches(most=1000, broken=range(53)), 0)


def test_a_reader_that_dies_is_told_with_its_video():
    with pytest.raises(ChildProcessError, match=r"the process that read video 'video17' \(row 17\) ended"):
        epoch_of(batches(2, deadly=[17]), 0)


def test_a_reader_that_hangs_is_told_with_its_video():
    with pytest.raises(ChildProcessError, match=r"'video17' \(row 17\) was not read within 0.5 seconds"):
        epoch_of(batches(2, timeout=0.5, endless=[17]), 0)


def test_a_reader_that_dies_during_a_step_is_told_too():
    rows = [row for row, _ in training_pairs().pairs]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1)).tolist()
    # The part after those that the first batch needs, one more than it has, is read during its step.
    early, part = ({rows[index] for index in chosen} for chosen in (order[: BATCH + 8], order[BATCH + 8 : BATCH + 16]))
    with pytest.raises(ChildProcessError, match="the process that read video"):  # noqa: SIM117
        with batches(2, deadly=part - early).epoch(0) as epoch:
            next(epoch)
            time.sleep(60)


def test_other_errors_of_a_step_stay_what_they_are():
    with pytest.raises(RuntimeError, match="out of memory"), batches(2).epoch(0) as epoch:
        next(epoch)
        raise RuntimeError("out of memory")


def test_the_clock_counts_the_time_in_the_loader_epoch_by_epoch(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    source = batches()
    sample = source.pairs.frames.sample

    def slow_sample(row, seeds):
        now[0] += 0.125
        return sample(row, seeds)

    source.pairs.frames.sample = slow_sample
    for number, step in enumerate((12.0, 4.0)):
        now[0] += 1000.0  # between epochs
        with source.epoch(number) as epoch:
            for _ in epoch:
                now[0] += step
        assert source.clock.share("epoch") == pytest.approx(4 / (4 + step))


def test_readers_are_counted_by_the_machine(monkeypatch):
    monkeypatch.setattr(loading, "usable_cores", lambda: 64)
    cuda = SimpleNamespace(type="cuda")
    assert [reader_count(cuda, processes) for processes in (1, 4, 8, 64)] == [16, 15, 7, 0]
    assert reader_count(SimpleNamespace(type="cpu"), 1) == 0


def test_a_batch_has_to_fit():
    with pytest.raises(ValueError, match=r"batch_size \(200\) exceeds the number of training pairs \(10[0-9]\)"):
        make_loader(training_pairs(), collator(), batch_size=200)
    with pytest.raises(ValueError, match=r"part_size \(5\) must divide batch_size \(8\)"):
        make_loader(training_pairs(), collator(), batch_size=8, part_size=5)


@pytest.mark.parametrize(("share", "part"), [(128, 8), (16, 8), (36, 9), (4, 4), (13, 13), (1, 1), (4096, 8)])
def test_parts_divide_a_share(share, part):
    assert loading._part_size(share) == part


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_come_to_the_gpu():
    set_seed(1)
    config = DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True)
    unreadable = UnreadableVideos(NAMES)
    source = TrainingBatches(
        Accelerator(dataloader_config=config), training_pairs(), collator(), unreadable, batch_size=BATCH, num_workers=2
    )
    on_gpu = [{name: tensor.cpu() for name, tensor in batch.items()} for batch in epoch_of(source, 0)]
    assert source._loader.pin_memory
    AcceleratorState._reset_state(reset_partial_state=True)
    assert_same(on_gpu, epoch_of(batches(), 0))


if __name__ == "__main__":
    work(sys.argv[1])
