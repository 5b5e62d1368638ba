from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader
from written_frames import WrittenFrames

from hcmi.train.data.frame_sources import FileFrames, VideoFrames
from hcmi.train.data.pairs import Pair, PairCollator, TrainingPairs

CAPTIONS = [["a ring grows", "a circle gets larger"], ["two squares meet"], ["it ends", "it is over", "the end"]]


def views(count, value=1):
    frames = torch.full((count, 3, 4, 4), value, dtype=torch.uint8)
    return VideoFrames(frames, torch.arange(count, dtype=torch.float64), (0.0, float(count)))


def draws(seed=0, views=1, epochs=30):
    pairs = TrainingPairs(CAPTIONS, WrittenFrames(), seed, "videos")
    drawn = []
    for epoch in range(epochs):
        pairs.begin_epoch(epoch, views)
        drawn.append([pairs[row] for row in range(len(pairs))])
    return drawn


def captions_of(drawn):
    return [[pair.caption for pair in epoch] for epoch in drawn]


def seeds_of(drawn):
    return [view.span[1] for epoch in drawn for pair in epoch for view in pair.views]


def test_a_pair_is_a_video_and_one_of_its_own_captions():
    drawn = draws()
    for row, own in enumerate(CAPTIONS):
        counts = Counter(epoch[row].caption for epoch in drawn)
        assert set(counts) == set(own) and min(counts.values()) >= 30 / len(own) / 3
        assert all(epoch[row].row == row and epoch[row].views[0].frames[0].unique() == row for epoch in drawn)


def test_draws_depend_on_seed_epoch_and_row_alone():
    drawn = draws(5, views=2)
    assert captions_of(draws(5, views=2)) == captions_of(drawn)
    assert seeds_of(draws(5, views=2)) == seeds_of(drawn)
    pairs = TrainingPairs(CAPTIONS, WrittenFrames(), 5, "videos")
    pairs.begin_epoch(7, 2)
    assert [pairs[row].caption for row in (2, 0, 1, 2)] == [drawn[7][row].caption for row in (2, 0, 1, 2)]
    assert captions_of(draws(6, views=2)) != captions_of(drawn)


def test_an_epoch_may_go_through_every_caption_with_its_video():
    pairs = TrainingPairs(CAPTIONS, WrittenFrames(), 5, "captions")
    seeds = []
    for epoch in range(3):
        pairs.begin_epoch(epoch, 2)
        drawn = [pairs[index] for index in range(len(pairs))]
        assert [(pair.row, pair.caption) for pair in drawn] == [(r, c) for r, own in enumerate(CAPTIONS) for c in own]
        assert all(view.frames[0].unique() == pair.row for pair in drawn for view in pair.views)
        seeds += [view.span[1] for pair in drawn for view in pair.views]
    # Every caption sees frames of its own.
    assert len(set(seeds)) == 3 * 6 * 2


def test_every_view_of_every_row_and_epoch_is_a_draw_of_its_own():
    for number in (1, 2):
        drawn = draws(0, number)
        assert all(len(pair.views) == number for epoch in drawn for pair in epoch)
        assert len(set(seeds_of(drawn))) == 30 * 3 * number
    assert not set(seeds_of(drawn)) & set(seeds_of(draws(1, 2)))


def test_the_second_view_changes_neither_the_first_nor_the_caption():
    one, two = draws(views=1), draws(views=2)
    assert captions_of(one) == captions_of(two)
    assert seeds_of(one) == seeds_of(two)[::2]


@pytest.mark.parametrize("over", ["captions", "videos"])
def test_another_pair_takes_the_place_of_one_that_cannot_be_read(over):
    captions = [[f"caption {row} {number}" for number in range(3)] for row in range(12)]
    whole, holed = (TrainingPairs(captions, WrittenFrames(broken), 5, over) for broken in ((), (4, 9)))
    taken = []
    for epoch in range(4):
        whole.begin_epoch(epoch, 2)
        holed.begin_epoch(epoch, 2)
        for index in range(len(whole)):
            own, pair = whole[index], holed[index]
            assert (pair.row, pair.caption, seeds_of([[pair]])) == (
                holed[index].row, holed[index].caption, seeds_of([[holed[index]]])
            )  # fmt: skip
            if own.row not in (4, 9):
                assert pair.unreadable == () and (pair.row, pair.caption) == (own.row, own.caption)
                continue
            assert pair.unreadable[0] == (own.row, f"{own.row}.mp4: not a video")
            assert pair.row not in (4, 9) and pair.caption in captions[pair.row] and len(pair.views) == 2
            taken.append((pair.row, *seeds_of([[pair]])))
    # Drawn among all, with frames of their own.
    assert len({row for row, *_ in taken}) > 3 and len(set(taken)) == len(taken)
    assert not {seed for _, *seeds in taken for seed in seeds} & set(seeds_of([[whole[k] for k in range(len(whole))]]))


def test_where_no_pair_can_be_read_all_that_were_tried_are_told(processor):
    pairs = TrainingPairs(CAPTIONS, WrittenFrames(broken=range(3)), 5)
    pair = pairs[0]
    assert pair.views == [] and {met.row for met in pair.unreadable} == {0, 1, 2} and len(pair.unreadable) == 3
    assert PairCollator(processor.tokenizer, 2, 40)([pair]) == {"unreadable": list(pair.unreadable)}


def test_a_batch_tells_what_could_not_be_read(processor):
    pairs = TrainingPairs(CAPTIONS, WrittenFrames(broken=[1]), 5, "videos")
    batch = PairCollator(processor.tokenizer, 2, 40)([pairs[row] for row in range(3)])
    assert batch["unreadable"] == [(1, "1.mp4: not a video")] and 1 not in batch["video_ids"]


def test_worker_processes_draw_the_same(videos, processor):
    pairs = TrainingPairs(videos["captions"], FileFrames(processor, videos, 4), seed=0, over="videos")
    pairs.begin_epoch(3, views=2)
    collator = PairCollator(processor.tokenizer, 4, 40)
    alone, shared = (list(DataLoader(pairs, 4, collate_fn=collator, num_workers=workers)) for workers in (0, 2))
    assert len(alone) == len(shared) == 2
    for first, second in zip(alone, shared, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(first["pixel_values_videos"], first["second_pixel_values_videos"])


def test_frames_are_padded_and_masked(processor):
    pairs = [Pair(4, "a ring", [views(3), views(1, 2)]), Pair(9, "a ring", [views(5), views(4, 2)])]
    batch = PairCollator(processor.tokenizer, 5, 40)(pairs)
    assert batch["pixel_values_videos"].shape == (2, 5, 3, 4, 4) and batch["pixel_values_videos"].dtype == torch.uint8
    for prefix, value, counts in (("", 1, (3, 5)), ("second_", 2, (1, 4))):
        mask, pixels = batch[f"{prefix}video_mask"], batch[f"{prefix}pixel_values_videos"]
        assert mask.dtype == torch.bool
        assert mask.tolist() == [[frame < count for frame in range(5)] for count in counts]
        assert (pixels[mask] == value).all() and (pixels[~mask] == 0).all()
    assert batch["video_ids"].tolist() == [4, 9]


def test_one_view_makes_no_second(processor):
    batch = PairCollator(processor.tokenizer, 5, 40)([Pair(0, "a ring", [views(3)])])
    assert set(batch) == {"input_ids", "attention_mask", "pixel_values_videos", "video_mask", "video_ids"}


def test_texts_are_padded_to_the_longest_and_masked(processor):
    captions = ["a ring", "a small red ring slides left, then two blue squares grow"]
    batch = PairCollator(processor.tokenizer, 3, 40)([Pair(0, caption, [views(3)]) for caption in captions])
    for ids, mask, caption in zip(batch["input_ids"], batch["attention_mask"].bool(), captions, strict=True):
        expected = processor.tokenizer(caption)["input_ids"]
        assert ids[mask].tolist() == expected
        assert (ids[~mask] == processor.tokenizer.pad_token_id).all()
    assert batch["attention_mask"][1].all() and not batch["attention_mask"][0].all()


@pytest.mark.parametrize("most", [3, 8])
def test_longer_texts_are_cut_and_keep_their_end(processor, most):
    captions = ["a small red ring slides left, then two blue squares grow", "it"]
    batch = PairCollator(processor.tokenizer, 3, most)([Pair(0, caption, [views(3)]) for caption in captions])
    whole = processor.tokenizer(captions[0])["input_ids"]
    assert batch["input_ids"].shape == (2, most)
    assert batch["input_ids"][0].tolist() == [*whole[: most - 1], processor.tokenizer.eos_token_id]
