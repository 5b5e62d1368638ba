import pytest
import torch
from tiny_hcmi import tiny_model

from hcmi.retrieval.index.model_identity import fingerprint, is_same


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_is_itself_in_every_type(dtype):
    assert is_same(fingerprint(tiny_model()), fingerprint(tiny_model().to(dtype)))


def test_another_seed_shape_or_a_training_step_makes_another_model():
    model = tiny_model()
    original = fingerprint(model)
    assert not is_same(original, fingerprint(tiny_model(seed=1)))
    assert not is_same(original, fingerprint(tiny_model(frame_word_interaction="max_mean"))[:-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sum(parameter.square().sum() for parameter in model.parameters()).backward()
    optimizer.step()
    assert not is_same(original, fingerprint(model))
