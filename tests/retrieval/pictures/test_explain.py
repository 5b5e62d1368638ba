import pytest
import torch
from encoded import random_encoded
from random_features import random_text_features
from saved_hcmi import save_tiny_hcmi, write_video
from similarity_loops import cosine, token_wise_by_loops

from hcmi.modeling_hcmi import LEVELS
from hcmi.modeling_hcmi.interaction_hcmi import blockwise_similarity
from hcmi.retrieval import EncodedVideos, VideoIndex, VideoIndexError
from hcmi.retrieval.indexing.windows import WindowRule
from hcmi.retrieval.pictures.explain import explain, explain_hit, explain_video
from hcmi.retrieval.pictures.query_words import QueryWord

WEIGHTS = {"frame_word": 1.0, "clip_phrase": 2.0, "video_sentence": 0.5}
QUERY = "a red ring slides left then a blue square grows"


def named(count: int) -> list[QueryWord]:
    return [QueryWord(f"word{number}") for number in range(count)]


def random_explanation(words: int, frames: int, seed: int = 0) -> tuple:
    """An explanation of random features, which are padded, and these features."""
    text = random_text_features([words], 6, seed=seed, padded_to=words + 3)
    video = random_encoded([frames, frames + 3], 6, seed=seed + 50)
    video = EncodedVideos(["v"], video.features.select([0]), video.timestamps[:1], video.video_spans[:1])
    return explain("a query", named(words), text, video, WEIGHTS), text, video


@pytest.mark.parametrize(("words", "frames"), [(1, 1), (1, 6), (9, 1), (5, 7), (12, 12)])
def test_every_value_against_loops(words, frames):
    found, text, video = random_explanation(words, frames, seed=words + frames)
    features = video.features
    w, f = text.words[0, :words].tolist(), features.frames[0, :frames].tolist()
    cosines = [[cosine(word, frame) for frame in f] for word in w]
    torch.testing.assert_close(found.cosines.tolist(), cosines, atol=1e-6, rtol=0)
    word_weights, frame_weights = text.word_weights[0].tolist(), features.frame_weights[0].tolist()
    assert found.word_weights.tolist() == word_weights[:words]
    assert found.frame_weights.tolist() == frame_weights[:frames]
    assert found.word_frames.tolist() == [row.index(max(row)) for row in cosines]
    columns = list(zip(*cosines, strict=True))
    assert found.frame_words.tolist() == [column.index(max(column)) for column in columns]

    shares = [word_weights[i] * max(row) / 2 for i, row in enumerate(cosines)]
    for frame, column in enumerate(columns):
        shares[column.index(max(column))] += frame_weights[frame] * max(column) / 2
    assert found.word_shares.tolist() == pytest.approx(shares, abs=1e-6)

    sentence = text.pooler_output[0].tolist()
    assert found.relevance.tolist() == pytest.approx([cosine(sentence, frame) for frame in f], abs=1e-6)
    assert found.times == tuple(n + 0.5 for n in range(frames))
    assert found.span == (0.0, frames)
    assert len(found.words) == words


@pytest.mark.parametrize(("words", "frames"), [(1, 1), (5, 7), (12, 12)])
def test_shares_add_up_to_the_scores(words, frames):
    found, text, video = random_explanation(words, frames, seed=9)
    scores = blockwise_similarity(text, video.features, WEIGHTS)
    assert found.score == scores.combined.item()
    assert found.level_scores == {level: scores[level].item() for level in LEVELS}
    weighted = sum(found.level_weights[level] * found.level_scores[level] for level in LEVELS)
    assert found.score == pytest.approx(weighted / sum(WEIGHTS.values()), abs=1e-6)
    assert found.word_shares.sum().item() == pytest.approx(found.level_scores["frame_word"], abs=1e-5)
    assert sum(link.share for link in found.links) == pytest.approx(found.level_scores["clip_phrase"], abs=1e-5)


def test_phrases_clips_and_their_links_against_loops():
    found, text, video = random_explanation(9, 8, seed=3)
    features = video.features
    p, c = text.phrases[0, :5].tolist(), features.clips[0, :4].tolist()
    cosines = [[cosine(phrase, clip) for clip in c] for phrase in p]
    torch.testing.assert_close(found.clip_cosines.tolist(), cosines, atol=1e-6, rtol=0)
    assert found.phrases.tolist() == text.phrase_word_weights[0, :5, :9].tolist()
    assert found.clips.tolist() == features.clip_frame_weights[0, :4, :8].tolist()
    assert found.phrases.sum(1).tolist() == pytest.approx([1.0] * 5, abs=1e-6)

    a, b = text.phrase_weights[0].tolist(), features.clip_weights[0].tolist()
    expected: dict = {}
    for phrase, row in enumerate(cosines):
        pair = phrase, row.index(max(row))
        expected[pair] = expected.get(pair, 0.0) + a[phrase] * max(row) / 2
    for clip, column in enumerate(zip(*cosines, strict=True)):
        pair = column.index(max(column)), clip
        expected[pair] = expected.get(pair, 0.0) + b[clip] * max(column) / 2
    assert {(link.phrase, link.clip): link.share for link in found.links} == pytest.approx(expected, abs=1e-6)
    assert all(link.cosine == pytest.approx(cosines[link.phrase][link.clip]) for link in found.links)
    assert [link.share for link in found.links] == sorted((link.share for link in found.links), reverse=True)
    total = token_wise_by_loops([p], [c], [[True] * 5], [[True] * 4], [a], [b])[0][0]
    assert found.level_scores["clip_phrase"] == pytest.approx(total, abs=1e-5)


def test_what_a_phrase_and_a_clip_are_mainly_made_of():
    found, *_ = random_explanation(9, 8)
    for number, weights in enumerate(found.phrases.tolist()):
        assert found.main_words(number) == [i for i, weight in enumerate(weights) if weight >= max(weights) / 2]
    for number, weights in enumerate(found.clips.tolist()):
        assert found.main_frames(number) == [i for i, weight in enumerate(weights) if weight >= max(weights) / 2]


def test_what_cannot_be_explained():
    _, text, video = random_explanation(4, 3)
    with pytest.raises(ValueError, match=r"3 words are named for a text of 4\."):
        explain("q", named(3), text, video, WEIGHTS)
    with pytest.raises(ValueError, match="not 1 and 2"):
        explain("q", named(4), text, video + video, WEIGHTS)
    with pytest.raises(ValueError, match="not 2 and 1"):
        explain("q", named(4), random_text_features([4, 4], 6), video, WEIGHTS)


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> VideoIndex:
    """Five videos of one window and one of three, without their last digits: int8."""
    folder = tmp_path_factory.mktemp("indexed")
    model = save_tiny_hcmi(folder / "model")
    for number in range(5):
        write_video(folder / "videos" / f"{number}.mp4", frames=12 + 4 * number, seed=number)
    write_video(folder / "videos" / "long.mp4", frames=60, seed=9)
    with VideoIndex.create(folder / "index", model, device="cpu") as made:
        rule = WindowRule("fixed", seconds=2.0, whole_up_to=3.0)
        made.add([folder / "videos"], rule=rule, progress=False, num_workers=0)
        yield made


def test_a_hit_is_explained_from_what_the_index_keeps(index):
    best = index.search(QUERY, top_k=10).hits
    others = [other for hit in best for other in hit.others]
    assert (len(best), len(others)) == (6, 2)
    for hit in (*best, *others):
        found = explain_hit(index, hit, QUERY)
        assert (found.query, found.video) == (QUERY, hit.video)
        assert found.score == pytest.approx(hit.score, abs=1e-6)
        assert found.level_scores == pytest.approx(hit.level_scores, abs=1e-6)
        assert found.moment == (hit.start, hit.end)
        assert found.span == (hit.window.start, hit.window.end)
        assert [word.label for word in found.words] == ["[start]", *QUERY.split(), "[end]"]
        assert found.word_shares.sum().item() == pytest.approx(hit.level_scores["frame_word"], abs=1e-5)
        inside = found.moment_frames
        assert inside == list(range(inside[0], inside[-1] + 1))
        assert int(found.relevance.argmax()) in inside


def test_a_video_is_explained_by_its_best_window(index):
    for hit in index.search(QUERY, top_k=10, exact=True).hits:
        found = explain_video(index, hit.video, QUERY)
        assert (found.span, found.moment) == ((hit.window.start, hit.window.end), (hit.start, hit.end))
        assert found.score == pytest.approx(hit.score, abs=1e-6)
    with pytest.raises(VideoIndexError, match=r"gone\.mp4"):
        explain_video(index, "gone.mp4", QUERY)
    with pytest.raises(ValueError, match="empty"):
        explain_video(index, hit.video, " ")
