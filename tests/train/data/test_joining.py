import pytest
import torch

from hcmi.train.data.joining import grouped, joined, on_device

CPU = torch.device("cpu")
PADDING = {"input_ids": 7}


def part(rows, words, value):
    return {
        "input_ids": torch.full((rows, words), value),
        "attention_mask": torch.ones(rows, words, dtype=torch.long),
        "pixel_values_videos": torch.full((rows, 2, 3, 4, 4), value, dtype=torch.uint8),
        "video_ids": torch.arange(rows) + 10 * value,
    }


def test_groups_are_consecutive():
    assert list(grouped(range(6), 2)) == [[0, 1], [2, 3], [4, 5]]
    assert list(grouped([], 2)) == []


def test_parts_become_one_batch_in_their_order():
    batch = joined([part(2, 3, 1), part(1, 5, 2)], PADDING, CPU)
    assert batch["input_ids"].tolist() == [[1, 1, 1, 7, 7], [1, 1, 1, 7, 7], [2] * 5]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1] * 5]
    assert batch["video_ids"].tolist() == [10, 11, 20]
    pixels = batch["pixel_values_videos"]
    assert pixels.dtype == torch.uint8 and pixels.flatten(1).unique(dim=1).flatten().tolist() == [1, 1, 2]


@pytest.mark.parametrize("widths", [(4, 4), (4, 2), (1, 4)])
def test_nothing_of_the_fresh_memory_is_left(widths):
    parts = [part(2, width, value) for value, width in enumerate(widths)]
    for name, tensor in joined(parts, PADDING, CPU).items():
        widest = max(one[name].shape[1:] for one in parts)
        row = 0
        for own in (one[name] for one in parts):
            expected = torch.full((len(own), *widest), PADDING.get(name, 0), dtype=own.dtype)
            expected[tuple(slice(size) for size in own.shape)] = own
            assert torch.equal(tensor[row : row + len(own)], expected)
            row += len(own)


def test_a_single_part_is_the_batch():
    only = part(2, 3, 1)
    assert all(tensor is only[name] for name, tensor in joined([only], PADDING, CPU).items())


def test_every_group_comes_to_the_device():
    batches = list(on_device(grouped([part(2, 3, value) for value in range(4)], 2), PADDING, CPU))
    assert [batch["video_ids"].tolist() for batch in batches] == [[0, 1, 10, 11], [20, 21, 30, 31]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copies_on_their_own_stream_are_whole_when_they_are_used():
    device = torch.device("cuda")
    parts = [{name: tensor.pin_memory() for name, tensor in part(64, 9, value).items()} for value in range(40)]
    for step, batch in enumerate(on_device(grouped(parts, 2), PADDING, device)):
        expected = joined(parts[2 * step : 2 * step + 2], PADDING, CPU)
        # Work that lets the host run ahead, on memory that the allocator gives away again.
        for _ in range(20):
            torch.randn(512, 512, device=device) @ torch.randn(512, 512, device=device)
        assert all(torch.equal(tensor.cpu(), expected[name]) for name, tensor in batch.items())
