import numpy as np
import pytest
from encoded import random_encoded
from random_features import random_text_features
from torch.nn.functional import normalize

from hcmi.modeling_hcmi import LEVELS
from hcmi.retrieval.index import embedded_store
from hcmi.retrieval.index.embedded_store import EmbeddedStore
from hcmi.retrieval.index.row_codec import RowShape
from hcmi.retrieval.index.search import SearchDepth, query_vectors
from hcmi.retrieval.index.vector_files import VectorFiles

DEAD = [0, 7, 149]
WEIGHTS = dict(zip(LEVELS, (1.0, 2.0, 0.5), strict=True))


@pytest.fixture(params=["int8", "float16", "float32"])
def store(request, tmp_path):
    """150 windows of one to three clips, of which three are dead."""
    files = VectorFiles(tmp_path, RowShape(8, frames=6, clips=3, precision=request.param))
    files.write(0, *files.shape.encode(random_encoded([1 + i % 6 for i in range(150)])))
    files.map(150)
    return EmbeddedStore(files, DEAD)


def by_loops(store, query, depth, weights):
    """Rows as both stages leave them, from what the store itself gives back."""
    features = store.read(np.arange(150)).features
    video, clips = normalize(features.pooler_output, dim=-1), normalize(features.clips, dim=-1)
    cosines = {row: float(video[row] @ query.sentence) for row in range(150) if row not in DEAD}
    near = sorted(cosines, key=cosines.get, reverse=True)[: depth.nearest]
    scores = {}
    for row in near:
        best = [max(float(clip @ phrase) for clip in clips[row, features.clip_mask[row]]) for phrase in query.phrases]
        of_clips = sum(weight * cosine for weight, cosine in zip(query.phrase_weights.tolist(), best, strict=True))
        scores[row] = weights["video_sentence"] * cosines[row] + weights["clip_phrase"] * of_clips
    return sorted(near, key=scores.get, reverse=True)[: depth.rescored]


def test_both_stages_are_those_of_plain_loops(store, monkeypatch):
    monkeypatch.setattr(embedded_store, "_VECTORS_AT_ONCE", 64)
    for seed in range(3):
        for weights in (WEIGHTS, WEIGHTS | {"video_sentence": 0.0}):
            query = query_vectors(random_text_features([7], 8, seed), weights)
            depth = SearchDepth(nearest=100, rescored=20)
            expected, found = by_loops(store, query, depth, weights), store.nearest(query, depth).tolist()
            # Half a float's digits may exchange neighbours, and the last ones of a stage with the first behind it.
            assert len(set(found) & set(expected)) >= 19 and found[:3] == expected[:3]


def test_what_is_dead_is_not_found_and_neither_is_more_than_there_is(store):
    query = query_vectors(random_text_features([4], 8), WEIGHTS)
    assert len(store) == 147 and not set(DEAD) & set(store.live_rows().tolist())
    everything = store.nearest(query, SearchDepth(nearest=1000, rescored=1000)).tolist()
    assert sorted(everything) == store.live_rows().tolist()


def test_without_weight_on_phrases_the_first_stage_decides(store):
    query = query_vectors(random_text_features([4], 8), WEIGHTS | {"clip_phrase": 0.0})
    first = store.nearest(query, SearchDepth(nearest=147, rescored=147)).tolist()
    assert store.nearest(query, SearchDepth(nearest=147, rescored=5)).tolist() == first[:5]
