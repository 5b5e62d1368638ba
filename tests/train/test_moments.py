import pytest
import torch
from datasets import Dataset
from given_features import WIDTH, WORDS, GivenFeatures, numbered_frames, word_processor
from random_features import random_text_features, random_video_features

from hcmi.modeling_hcmi.moments_hcmi import answering_clips, clip_time_spans, frame_relevance, relevant_span
from hcmi.train.encoding import EncodedTexts, EncodedVideos
from hcmi.train.evaluation import evaluate
from hcmi.train.moments import measure_moments
from hcmi.train.span_metrics import span_metrics


def test_moments_are_measured_against_the_true_spans_and_two_baselines():
    processor = word_processor()
    # Two videos of four one-second frames and four clips, one of each frame; every frame is named by one word alone.
    clips = torch.eye(8, WIDTH).reshape(2, 4, WIDTH)
    words = dict(zip(WORDS[:8], torch.eye(8, WIDTH), strict=True))
    captions = {WORDS[8]: torch.ones(WIDTH), WORDS[9]: torch.ones(WIDTH)}
    model = GivenFeatures(processor.tokenizer, words | captions, torch.ones(2, WIDTH), clips)

    def event(start, end, word):
        return {"start": float(start), "end": float(end), "phrases": [WORDS[word], "never asked"]}

    rows = [
        {"video_id": "a", "captions": [WORDS[8]], "events": [event(0, 1, 0), event(2, 4, 2), event(0, 1, 3)]},
        {"video_id": "b", "captions": [WORDS[9]], "events": [event(1, 2, 5)]},
    ]
    measured = evaluate(model, processor, Dataset.from_list(rows), frames_for=numbered_frames, show_progress=False)
    moments = measured["moments"]
    several = moments["videos_with_several_events"]
    # 0-1 s exactly; 2-3 s of 2-4 s; 3-4 s instead of 0-1 s; 1-2 s exactly.
    for reading in ("predicted", "answering_clip"):
        assert moments["all"][reading] == pytest.approx({"mIoU": 62.5, "R@1_IoU0.3": 75, "R@1_IoU0.5": 75})
    assert several["predicted"]["mIoU"] == pytest.approx(50)
    # The whole four seconds: 1/4, 2/4, 1/4, 1/4.
    assert moments["all"]["whole_video"] == pytest.approx({"mIoU": 31.25, "R@1_IoU0.3": 25, "R@1_IoU0.5": 25})
    assert 0 < moments["all"]["random_span"]["mIoU"] < 40
    assert (moments["all"]["events"], moments["all"]["videos"]) == (4, 2)
    assert (several["events"], several["videos"]) == (3, 1)


def test_every_event_is_searched_in_its_own_video():
    video, text = random_video_features([4, 6, 5], seed=3), random_text_features([3, 2, 4, 5, 2], seed=4)
    seconds = torch.arange(6, dtype=torch.float64).repeat(3, 1)
    spans = torch.tensor([[0.0, 4.0], [0.0, 6.0], [0.0, 5.0]], dtype=torch.float64)
    videos = EncodedVideos(video, seconds + 0.5, spans)
    queries = EncodedTexts(text, torch.tensor([0, 1, 2, 3, 4, 0]), max_words=9, num_cut=0)
    of_video = [[(0, 1.0, 2.0), (1, 0.0, 3.0)], [(2, 2.0, 5.0)], [(3, 0.0, 1.0), (4, 1.0, 4.0), (0, 2.0, 5.0)]]
    events = [[{"start": start, "end": end} for _, start, end in own] for own in of_video]
    measured = measure_moments(queries, videos, events)["all"]

    found, clips, true = [], [], []
    for v, own in enumerate(of_video):
        for t, start, end in own:
            relevance = frame_relevance(text, video)[t, v]
            where = (video.frame_mask[v], videos.timestamps[v], *spans[v].tolist())
            found.append(relevant_span(relevance, *where))
            clips.append(
                clip_time_spans(video.clip_frame_weights[v], *where)[answering_clips(text, video)[t, v]].tolist()
            )
            true.append((start, end))
    assert measured["predicted"] == pytest.approx(span_metrics(torch.tensor(found), torch.tensor(true)))
    assert measured["answering_clip"] == pytest.approx(span_metrics(torch.tensor(clips), torch.tensor(true)))
