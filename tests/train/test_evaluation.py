import threading
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from given_features import (
    WIDTH,
    WORDS,
    GivenFeatures,
    assert_same_metrics,
    numbered_frames,
    random_problem,
    run,
    word_processor,
)

from hcmi.modeling_hcmi import LEVELS
from hcmi.processing import VideoReadError
from hcmi.train import encoding, evaluation
from hcmi.train.evaluation import evaluate
from hcmi.train.metrics import DIRECTIONS, recall_curve, retrieval_metrics, text_to_video_ranks, video_to_text_ranks
from hcmi.train.post_processing import post_processed_metrics


@pytest.fixture(scope="module")
def processor():
    return word_processor()


@pytest.mark.parametrize("repeated", [False, True])
def test_texts_of_any_length_keep_their_videos(repeated):
    # Long and short texts in turn: encoding sorts them by length.
    processor = word_processor()
    lengths = [5, 1, 3, 2, 6, 1, 4, 2]
    texts = [" ".join(WORDS[(7 * n + k) % 140] for k in range(length)) for n, length in enumerate(lengths)]
    vectors = torch.eye(len(texts), WIDTH)
    model = GivenFeatures(processor.tokenizer, dict(zip(texts, vectors, strict=True)), vectors)
    captions = [[text, text] if repeated else [text] for text in texts]
    measured = run(model, processor, captions)
    for level in measured["levels"].values():
        assert level["text_to_video"]["R@1"] == level["video_to_text_group"]["R@1"] == 100


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
    assert result["post_processing"] == {} and "moments" not in result


def test_the_recall_curve_is_of_the_combined_scores(processor):
    counts = [2, 1, 3] * 10
    model, captions, cosines = random_problem(processor, counts)
    curve = run(model, processor, captions)["recall_curve"]
    mapping = torch.arange(30).repeat_interleave(torch.tensor(counts))
    assert curve["K"] == [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100]
    assert curve["text_to_video"] == recall_curve(text_to_video_ranks(cosines, mapping), curve["K"])
    assert curve["video_to_text_group"] == recall_curve(video_to_text_ranks(cosines, mapping, "group"), curve["K"])


@pytest.mark.parametrize("at_once", [3, 1000])
def test_post_processing_is_measured_beside_the_plain_scores(processor, monkeypatch, at_once):
    monkeypatch.setattr(evaluation, "_BANK_TEXTS_AT_ONCE", at_once)
    counts = [3, 1, 2, 0, 4]
    # The last video's captions are the bank; the video itself is left out.
    model, (*captions, bank), cosines = random_problem(processor, [*counts, 7])
    mapping = torch.arange(5).repeat_interleave(torch.tensor(counts))
    scores, bank_scores = cosines[:10, :5], cosines[10:, :5]
    names = ["dsl", "qb_norm"]
    result = run(model, processor, captions, post_processing=names, bank_texts=[*bank, bank[0]])

    expected = post_processed_metrics(scores, mapping, names, [bank_scores, bank_scores[:1]])
    processed = result["post_processing"]
    assert (processed["dsl"]["temperature"], processed["qb_norm"]["temperature"]) == (100, 20)
    assert processed["qb_norm"].pop("bank_texts") == 8
    assert set(processed["qb_norm"]) == {"temperature", "note", "text_to_video"}
    for name in names:
        assert_same_metrics(processed[name], expected[name])
    assert result["levels"] == run(model, processor, captions)["levels"]
    assert run(model, processor, captions, post_processing=["dsl"])["post_processing"] == {"dsl": processed["dsl"]}


def test_a_perfect_model_loses_everything_when_the_pairing_is_shifted(processor):
    texts = WORDS[:20]
    vectors = torch.nn.functional.normalize(torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)
    model = GivenFeatures(processor.tokenizer, dict(zip(texts, vectors, strict=True)), vectors)
    right = run(model, processor, [[text] for text in texts])["levels"]["combined"]
    shifted = run(model, processor, [[text] for text in texts[1:] + texts[:1]])["levels"]["combined"]
    for direction in DIRECTIONS:
        assert right[direction]["R@1"] == 100 and shifted[direction]["R@1"] == 0


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
        ([{"video_id": "a", "captions": ["bal"]}], {"post_processing": "dsl"}, "a list of any of"),
        ([{"video_id": "a", "captions": ["bal"]}], {"post_processing": ["softmax"]}, "a list of any of"),
        ([{"video_id": "a", "captions": ["bal"]}], {"post_processing": ["qb_norm"]}, "qb_norm needs bank_texts"),
        ([{"video_id": "a", "captions": ["bal"]}], {"bank_texts": ["bal"]}, "not asked for"),
    ],
)
def test_what_does_not_fit_is_refused(processor, rows, options, message):
    model, _, _ = random_problem(processor, [1, 1])
    with pytest.raises(ValueError, match=message):
        evaluate(model, processor, Dataset.from_list(rows), frames_for=numbered_frames, show_progress=False, **options)


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
