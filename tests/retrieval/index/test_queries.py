import pytest
import torch
from random_features import random_video_features
from saved_hcmi import save_tiny_hcmi, write_video

from hcmi.modeling_hcmi import LEVELS, HCMIModel
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.processing import HCMIProcessor, VideoReadError
from hcmi.retrieval.index.queries import as_text, encode_example, encode_text


@pytest.fixture(scope="module")
def model_and_processor(tmp_path_factory):
    folder = save_tiny_hcmi(tmp_path_factory.mktemp("model"))
    return HCMIModel.from_pretrained(folder).eval(), HCMIProcessor.from_pretrained(folder)


def test_videos_in_the_place_of_texts_are_compared_level_by_level():
    videos = random_video_features([4, 6, 2], width=8)
    scores = blockwise_similarity(as_text(videos), videos, dict.fromkeys(LEVELS, 1.0))
    for level in LEVELS:
        torch.testing.assert_close(scores[level], scores[level].T)
        torch.testing.assert_close(scores[level].diag(), torch.ones(3))
    cosine = torch.nn.functional.cosine_similarity(videos.pooler_output[0], videos.pooler_output[1], dim=0)
    torch.testing.assert_close(scores.video_sentence[0, 1], cosine)


def test_an_example_is_the_features_of_its_frames(model_and_processor, tmp_path):
    model, processor = model_and_processor
    path = write_video(tmp_path / "example.mp4", 20)
    inputs = processor(videos=[path], return_tensors="pt")
    with torch.no_grad():
        expected = model.get_video_features(inputs["pixel_values_videos"], inputs["video_mask"])
    found = encode_example(model, processor, path)
    torch.testing.assert_close(found.words, expected.frames, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output, rtol=1e-4, atol=1e-4)
    with pytest.raises(VideoReadError, match=r"missing\.mp4"):
        encode_example(model, processor, str(tmp_path / "missing.mp4"))


def test_a_text_that_says_nothing_is_refused(model_and_processor):
    for text, message in (("", "empty"), (" \n", "empty"), (None, "NoneType"), (["a"], "list")):
        with pytest.raises(ValueError, match=message):
            encode_text(*model_and_processor, text)
