import numpy as np
import pytest
import torch
from encoded import random_encoded
from random_features import random_text_features

from hcmi.modeling_hcmi import LEVELS
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.retrieval.index.row_codec import PRECISIONS, RowShape, checksums

FRAMES = [5, 2, 6, 1]
WEIGHTS = dict.fromkeys(LEVELS, 1.0)
TOLERANCE = {"int8": 0.02, "float16": 2e-3, "float32": 1e-6}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_comes_back_scores_as_what_was_stored(precision):
    windows, texts = random_encoded(FRAMES, width=32), random_text_features([4, 7], width=32)
    shape = RowShape(32, frames=6, clips=3, precision=precision)
    back = shape.decode(*shape.encode(windows), names=windows.names)

    for name in ("frame_mask", "clip_mask"):
        assert torch.equal(back.features[name], windows.features[name])
    assert torch.equal(back.video_spans, windows.video_spans)
    torch.testing.assert_close(back.timestamps, windows.timestamps, equal_nan=True, rtol=0, atol=0)
    for name in ("frame_weights", "clip_weights", "clip_frame_weights"):
        real = windows.features[name].masked_fill(~_mask(windows, name), 0.0)
        torch.testing.assert_close(
            back.features[name].masked_fill(~_mask(windows, name), 0.0), real, rtol=0, atol=TOLERANCE[precision]
        )
    expected = blockwise_similarity(texts, windows.features, WEIGHTS)
    found = blockwise_similarity(texts, back.features, WEIGHTS)
    for name in ("combined", *LEVELS):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=TOLERANCE[precision])


def _mask(windows, name):
    features = windows.features
    if name == "clip_frame_weights":
        return features.clip_mask[..., None] & features.frame_mask[:, None]
    return features[name.replace("weights", "mask")]


def test_int8_uses_the_whole_range_of_every_token():
    windows = random_encoded(FRAMES)
    _, records = RowShape(8, 6, 3, "int8").encode(windows)
    real = windows.features.frame_mask.numpy()
    assert (np.abs(records["frames"].astype(int)).max(-1)[real] == 127).all()


def test_longer_rows_than_the_batch_and_padding_beyond_the_shape():
    windows = random_encoded([2, 3])
    wide = RowShape(8, frames=12, clips=5, precision="float32")
    back = wide.decode(*wide.encode(windows), names=windows.names)
    assert back.features.frames.shape == (2, 12, 8) and back.features.clip_frame_weights.shape == (2, 5, 12)
    assert back.features.frame_mask.sum(-1).tolist() == [2, 3] and back.features.clip_mask.sum(-1).tolist() == [1, 2]
    # Padded to six frames by its batch, though none of the videos has more than three.
    padded = random_encoded([2, 3, 6]).features.select([0, 1])
    narrow = RowShape(8, frames=3, clips=2, precision="float32")
    cut = narrow.encode(type(windows)(["a", "b"], padded, torch.zeros(2, 6), torch.zeros(2, 2)))[1]
    assert cut["num_frames"].tolist() == [2, 3]


def test_checksums_tell_any_changed_byte():
    shape = RowShape(8, 6, 3, "int8")
    vectors, records = shape.encode(random_encoded(FRAMES))
    assert (checksums(vectors, records) == records["checksum"]).all()
    for field in ("clips", "frames", "frame_weights", "timestamps", "num_frames"):
        changed = records.copy()
        changed.view(np.uint8).reshape(len(changed), -1)[1, records.dtype.fields[field][1]] ^= 1
        assert (checksums(vectors, changed) != changed["checksum"]).tolist() == [False, True, False, False]
    vectors[2, 3] += 1
    assert (checksums(vectors, records) != records["checksum"]).tolist() == [False, False, True, False]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="int4"):
        RowShape(8, 6, 3, "int4")
    for shape in (RowShape(4, 6, 3, "int8"), RowShape(8, 5, 3, "int8"), RowShape(8, 6, 2, "int8")):
        with pytest.raises(ValueError, match="these have 6, 3 and 8"):
            shape.encode(random_encoded(FRAMES))


def test_a_window_of_twelve_frames_takes_less_than_ten_kilobytes():
    shape = RowShape(512, frames=12, clips=4, precision="int8")
    assert shape.records.itemsize + 512 * shape.vectors.itemsize == 9464
