import threading
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from hcmi.modeling_hcmi import LEVELS, HCMITextFeatures, HCMIVideoFeatures
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.processing import VideoReadError
from hcmi.train import encoding
from hcmi.train.data.frame_sources import VideoFrames
from hcmi.train.data.tokenizer import train_tokenizer
from hcmi.train.evaluation import evaluate
from hcmi.train.metrics import DIRECTIONS, retrieval_metrics, wilson_interval

WIDTH = 16
WORDS = [a + b + c for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


@pytest.fixture(scope="module")
def processor():
    return SimpleNamespace(tokenizer=train_tokenizer(WORDS, vocab_size=512, max_length=12), frames_per_video=4)


class GivenFeatures:
    """Stands for an HCMIModel whose embeddings are given: one vector per text, one per video for all three levels.

    A video's frames carry its number. `clips`: its clip vectors, each made of one frame; default: a single one.
    """

    device = torch.device("cpu")

    def __init__(self, tokenizer, vector_of_text, video_vectors, clips=None):
        self.config = SimpleNamespace(
            text_config=SimpleNamespace(max_position_embeddings=12), inference_weights=dict.fromkeys(LEVELS, 1.0)
        )
        self.training = True
        self.vector_of_tokens = {tuple(tokenizer(text)["input_ids"]): v for text, v in vector_of_text.items()}
        self.video_vectors, self.clips = video_vectors, clips
        self.videos_encoded, self.texts_encoded = [], []

    def train(self, mode=True):
        self.training = mode

    def eval(self):
        self.train(False)

    def get_video_features(self, pixel_values_videos, video_mask):
        assert not self.training and torch.is_inference_mode_enabled()
        assert pixel_values_videos.dtype == torch.uint8
        rows = pixel_values_videos[:, 0, 0, 0, 0].long()
        self.videos_encoded += rows.tolist()
        vectors = self.video_vectors[rows]
        clips = vectors[:, None] if self.clips is None else self.clips[rows]
        (count, frames), groups = video_mask.shape, clips.shape[1]
        # Clip c is made of frame c alone.
        clip_frames = torch.eye(max(groups, frames))[None, :groups, :frames].expand(count, -1, -1)
        return HCMIVideoFeatures(
            pooler_output=vectors,
            frames=vectors[:, None].expand(-1, frames, -1),
            clips=clips,
            frame_mask=video_mask,
            clip_mask=torch.ones(count, groups, dtype=torch.bool),
            frame_weights=video_mask / video_mask.sum(1, keepdim=True),
            clip_weights=torch.full((count, groups), 1 / groups),
            clip_frame_weights=clip_frames,
        )

    def get_text_features(self, input_ids, attention_mask):
        assert not self.training and torch.is_inference_mode_enabled()
        tokens = [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True)]
        self.texts_encoded += tokens
        vectors = torch.stack([self.vector_of_tokens[ids] for ids in tokens])
        one = torch.ones(len(vectors), 1)
        return HCMITextFeatures(
            pooler_output=vectors,
            words=vectors[:, None],
            phrases=vectors[:, None],
            word_mask=one.bool(),
            phrase_mask=one.bool(),
            word_weights=one,
            phrase_weights=one,
            phrase_word_weights=one[:, None],
        )

    def score(self, text_features, video_features):
        return blockwise_similarity(text_features, video_features, self.config.inference_weights)


def numbered_frames(row, count=4):
    frames = torch.full((count, 3, 2, 2), row, dtype=torch.uint8)
    return VideoFrames(frames, torch.arange(count, dtype=torch.float64) + 0.5, (0.0, float(count)))


def dataset_of(captions):
    return Dataset.from_list([{"video_id": f"v{row}", "captions": own} for row, own in enumerate(captions)])


def random_problem(processor, captions_per_video, seed=0):
    """Random, unrelated vectors for texts and videos."""
    generator = torch.Generator().manual_seed(seed)
    texts = [f"{WORDS[n % 100]} {WORDS[n // 100]}" for n in range(sum(captions_per_video))]
    text_vectors = torch.randn(len(texts), WIDTH, generator=generator)
    video_vectors = torch.randn(len(captions_per_video), WIDTH, generator=generator)
    model = GivenFeatures(processor.tokenizer, dict(zip(texts, text_vectors, strict=True)), video_vectors)
    left = iter(texts)
    captions = [[next(left) for _ in range(count)] for count in captions_per_video]
    cosines = torch.nn.functional.cosine_similarity(text_vectors[:, None], video_vectors[None], dim=-1)
    return model, captions, cosines


def run(model, processor, captions, **options):
    return evaluate(
        model, processor, dataset_of(captions), **{"frames_for": numbered_frames, "show_progress": False} | options
    )


def assert_same_metrics(found, expected):
    for direction in DIRECTIONS:
        for name, value in expected[direction].items():
            assert found[direction][name] == pytest.approx(value), (direction, name)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_level_is_ranked_as_its_similarity_matrix_says(processor, batch_size):
    counts = [3, 1, 2, 0, 4]
    model, captions, cosines = random_problem(processor, counts)
    result = run(model, processor, captions, batch_size=batch_size)
    mapping = torch.tensor([video for video, count in enumerate(counts) for _ in range(count)])
    assert tuple(result["levels"]) == (*LEVELS, "combined")
    for level in result["levels"].values():
        assert_same_metrics(level, retrieval_metrics(cosines, mapping))
    assert result["counts"] == {"videos": 5, "texts": 10, "distinct_texts": 10}
    assert result["frames"] == {"per_video": 4, "videos_with_fewer": 0}
    assert result["post_processing"] == "none" and "moments" not in result


def test_random_unrelated_embeddings_give_chance_level(processor):
    model, captions, _ = random_problem(processor, [3] * 100)
    combined = run(model, processor, captions)["levels"]["combined"]
    for k in (1, 5, 10):
        low, high = wilson_interval(k, 300)
        assert low - 1 <= combined["text_to_video"][f"R@{k}"] <= high + 1
    assert combined["text_to_video"]["MnR"] == pytest.approx(50.5, abs=6)
    assert combined["video_to_text_group"]["MnR"] == pytest.approx(50.5, abs=10)


def test_a_permuted_pairing_gives_the_permuted_result(processor):
    model, captions, cosines = random_problem(processor, [1] * 30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3)).tolist()
    permuted = run(model, processor, [captions[source] for source in order])
    expected = retrieval_metrics(cosines[order], torch.arange(30))
    assert_same_metrics(permuted["levels"]["combined"], expected)


def test_a_perfect_model_loses_everything_when_the_pairing_is_shifted(processor):
    texts = WORDS[:20]
    vectors = torch.nn.functional.normalize(torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)
    model = GivenFeatures(processor.tokenizer, dict(zip(texts, vectors, strict=True)), vectors)
    right = run(model, processor, [[text] for text in texts])["levels"]["combined"]
    shifted = run(model, processor, [[text] for text in texts[1:] + texts[:1]])["levels"]["combined"]
    for direction in DIRECTIONS:
        assert right[direction]["R@1"] == 100 and shifted[direction]["R@1"] == 0


def test_everything_is_encoded_once_and_equal_captions_tie(processor):
    model, captions, _ = random_problem(processor, [1, 1, 1])
    repeated = [[*captions[0], captions[1][0].upper()], captions[1], [captions[2][0]] * 2]
    result = run(model, processor, repeated, batch_size=2)
    assert sorted(model.videos_encoded) == [0, 1, 2]
    assert len(model.texts_encoded) == len(set(model.texts_encoded)) == 3
    assert result["counts"] == {"videos": 3, "texts": 5, "distinct_texts": 3}
    # The tokenizer lowers case: that caption belongs to two videos, whose scores for it are one and the same.
    ranked = result["levels"]["combined"]["video_to_text_sentence"]
    assert ranked["queries"] == 3 and ranked["gallery"] == 5


def test_long_texts_are_cut_and_counted(processor):
    texts = [" ".join(WORDS[:2]), " ".join(WORDS[:9])]
    tokens = [tuple(processor.tokenizer(t, truncation=True, max_length=6)["input_ids"]) for t in texts]
    model = GivenFeatures(processor.tokenizer, {}, torch.eye(2, WIDTH))
    model.vector_of_tokens = dict(zip(tokens, torch.eye(2, WIDTH), strict=True))
    result = run(model, processor, [[text] for text in texts], max_words=6)
    assert result["tokens"] == {"max_words": 6, "texts_cut": 1, "share_cut": 50}
    assert result["levels"]["combined"]["text_to_video"]["R@1"] == 100


def test_short_videos_are_masked_and_counted(processor):
    model, captions, cosines = random_problem(processor, [1, 1, 1])
    result = run(model, processor, captions, frames_for=lambda row: numbered_frames(row, count=4 - row))
    assert result["frames"] == {"per_video": 4, "videos_with_fewer": 2}
    assert_same_metrics(result["levels"]["combined"], retrieval_metrics(cosines, torch.arange(3)))


def test_the_models_mode_is_put_back(processor):
    model, captions, _ = random_problem(processor, [1])
    run(model, processor, captions)
    assert model.training


def unreadable_second(row):
    if row == 1:
        raise VideoReadError("clip.mp4", "it is empty")
    return numbered_frames(row)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_video_is_refused_with_its_name(processor, num_workers):
    model, captions, _ = random_problem(processor, [1, 1, 1])
    with pytest.raises(VideoReadError, match=r"'v1' \(row 1\): clip.mp4: it is empty"):
        run(model, processor, captions, frames_for=unreadable_second, num_workers=num_workers)
    assert model.training


def test_scores_that_are_no_numbers_are_refused_with_the_level(processor):
    model, captions, _ = random_problem(processor, [1, 1])
    model.video_vectors[1] = torch.nan
    with pytest.raises(ValueError, match="level frame_word: scores contain NaN"):
        run(model, processor, captions)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"video_id": "a", "captions": []}], {}, "nothing to evaluate"),
        ([{"video_id": "a", "captions": ["bal"]}, {"video_id": "a", "captions": ["bam"]}], {}, "more than once.*'a'"),
        ([{"video_id": "a", "captions": ["bal"]}], {"num_frames": 3}, "num_frames"),
        ([{"video_id": "a", "captions": ["bal"]}], {"max_words": 13}, "3..12"),
    ],
)
def test_what_does_not_fit_is_refused(processor, rows, options, message):
    model, _, _ = random_problem(processor, [1, 1])
    with pytest.raises(ValueError, match=message):
        evaluate(model, processor, Dataset.from_list(rows), frames_for=numbered_frames, show_progress=False, **options)


def test_moments_are_the_spans_of_the_answering_clips(processor):
    # Two videos of four one-second frames and four clips, one of each frame; every clip is answered by one word alone.
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
    assert moments["all"]["predicted"] == pytest.approx({"mIoU": 62.5, "R@1_IoU0.3": 75, "R@1_IoU0.5": 75})
    assert several["predicted"]["mIoU"] == pytest.approx(50)
    # The whole four seconds: 1/4, 2/4, 1/4, 1/4.
    assert moments["all"]["whole_video"] == pytest.approx({"mIoU": 31.25, "R@1_IoU0.3": 25, "R@1_IoU0.5": 25})
    assert 0 < moments["all"]["random_span"]["mIoU"] < 40
    assert (moments["all"]["events"], moments["all"]["videos"]) == (4, 2)
    assert (several["events"], several["videos"]) == (3, 1)


def in_two_processes(monkeypatch, work):
    """Runs `work(accelerator)` in two threads that gather as two processes do; returns or raises what each did."""
    barrier, batches, outcomes = threading.Barrier(2, timeout=20), {}, {}

    def gather_object(own):
        batches[threading.current_thread().name] = own
        barrier.wait()
        gathered = [*batches["0"], *batches["1"]]
        barrier.wait()
        return gathered

    def act(rank):
        try:
            outcomes[rank] = work(SimpleNamespace(process_index=rank, num_processes=2, is_main_process=rank == 0))
        except Exception as error:
            outcomes[rank] = error

    monkeypatch.setattr(encoding, "gather_object", gather_object)
    threads = [threading.Thread(target=act, args=(rank,), name=str(rank)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes[0], outcomes[1]


def test_two_processes_share_the_encoding_and_both_get_the_whole(processor, monkeypatch):
    models = {}

    def work(accelerator):
        model, captions, _ = random_problem(processor, [2, 1, 1, 2, 1])
        models[accelerator.process_index] = model
        return run(model, processor, captions, batch_size=2, accelerator=accelerator)

    model, captions, _ = random_problem(processor, [2, 1, 1, 2, 1])
    alone = run(model, processor, captions)
    for result in in_two_processes(monkeypatch, work):
        assert result["levels"] == alone["levels"] and result["counts"] == alone["counts"]
    assert models[0].videos_encoded == [0, 1] and models[1].videos_encoded == [2, 3, 4]


def test_both_processes_refuse_what_one_cannot_read(processor, monkeypatch):
    def work(accelerator):
        model, captions, _ = random_problem(processor, [1, 1, 1, 1])
        return run(model, processor, captions, frames_for=unreadable_second, accelerator=accelerator)

    for outcome in in_two_processes(monkeypatch, work):
        assert isinstance(outcome, VideoReadError) and "'v1'" in str(outcome)
