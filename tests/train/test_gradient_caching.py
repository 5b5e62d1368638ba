from contextlib import contextmanager

import pytest
import torch
from accelerators import new_accelerator
from pairs import pair_batch, training_model
from tiny_hcmi import TEXT_CONFIG, VISION_CONFIG, unlike

from hcmi.modeling_hcmi import concatenate_features, hcmi_objective
from hcmi.train.gradient_caching import GradientCache
from hcmi.train.step import PairEncoder

HIERARCHY = ("video_hierarchy.", "text_hierarchy.")
DROPOUT = {
    "text_config": TEXT_CONFIG | {"attention_dropout": 0.3},
    "vision_config": VISION_CONFIG | {"attention_dropout": 0.3},
    "aggregation_dropout": 0.3,
}


def objective_of(encoded, model, batch):
    text, video, second, scale = encoded
    return hcmi_objective(text, video, scale, model.config, second, batch["video_ids"])


def gradients(model):
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def undivided(model, batch):
    """Objective and gradients of a batch encoded at once, the plain way."""
    model.zero_grad()
    objective = objective_of(PairEncoder(model)(batch), model, batch)
    objective.loss.backward()
    return objective, gradients(model)


def cached(model, batch, chunk_size, accelerator=None):
    accelerator = accelerator or new_accelerator()
    encoder = accelerator.prepare(PairEncoder(model))
    model.zero_grad()
    cache = GradientCache(accelerator, encoder, batch, chunk_size)
    objective = objective_of(cache.encode(), model, batch)
    accelerator.backward(objective.loss)
    cache.backward(synchronize=True)
    return objective, gradients(model)


def assert_same(found, expected, tolerance=1e-5):
    (objective, gradients), (expected_objective, expected_gradients) = found, expected
    assert dict(objective).keys() == dict(expected_objective).keys()
    for part, value in expected_objective.items():
        torch.testing.assert_close(objective[part], value, atol=1e-6, rtol=1e-6, msg=part)
    for name, value in expected_gradients.items():
        if value is None:
            assert gradients[name] is None, name
        else:
            largest = max(1.0, float(value.abs().max()))
            torch.testing.assert_close(gradients[name], value, atol=tolerance * largest, rtol=0, msg=name)


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 6])
def test_gradients_are_those_of_the_undivided_batch(chunk_size):
    model, batch = training_model(), pair_batch()
    expected = undivided(model, batch)
    assert expected[0].mined_pairs > 0 and sum(value is not None for value in expected[1].values()) > 50
    assert_same(cached(model, batch, chunk_size), expected)


def test_one_view_is_enough():
    model = training_model()
    batch = {name: tensor for name, tensor in pair_batch().items() if not name.startswith("second_")}
    assert_same(cached(model, batch, 4), undivided(model, batch))


def test_only_a_chunk_is_encoded_at_a_time_and_the_second_view_once():
    model, frames, seen = training_model(), pair_batch()["video_mask"].shape[1], []
    model.vision_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((len(kwargs["pixel_values"]) // frames, torch.is_grad_enabled())),
        with_kwargs=True,
    )
    cached(model, pair_batch(), 4)
    assert seen == [(4, False)] * 2 + [(2, False)] * 2 + [(4, True), (2, True)]


@pytest.mark.parametrize("synchronize", [True, False])
def test_processes_wait_for_each_other_with_the_last_chunk_only(synchronize):
    accelerator, model, batch = new_accelerator(), training_model(), pair_batch()
    encoder, waiting, seen = accelerator.prepare(PairEncoder(model)), [True], []

    @contextmanager
    def no_sync(module):
        assert module is encoder
        waiting.append(False)
        yield
        waiting.pop()

    accelerator.no_sync = no_sync
    encoder.register_forward_pre_hook(lambda module, args: seen.append(waiting[-1]))
    cache = GradientCache(accelerator, encoder, batch, 2)
    objective_of(cache.encode(), model, batch).loss.backward()
    cache.backward(synchronize)
    assert seen == [False] * 5 + [synchronize]


def in_chunks_with_a_graph(model, batch, chunk_size):
    """What caching has to give where random numbers are drawn: the same chunks, encoded once, all graphs kept."""
    model.zero_grad()
    encoder = PairEncoder(model)
    chunks = zip(*(tensor.split(chunk_size) for tensor in batch.values()), strict=True)
    texts, videos, seconds, scales = zip(*(encoder(dict(zip(batch, c, strict=True))) for c in chunks), strict=True)
    encoded = concatenate_features(texts), concatenate_features(videos), torch.cat(seconds), scales[-1]
    objective = objective_of(encoded, model, batch)
    objective.loss.backward()
    return objective, gradients(model)


def test_dropout_is_replayed():
    model, batch = training_model(**DROPOUT), pair_batch()
    torch.manual_seed(5)
    expected = in_chunks_with_a_graph(model, batch, 2)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    found = cached(model, batch, 2)
    assert torch.equal(torch.rand(3), drawn)
    assert_same(found, expected)
    other = in_chunks_with_a_graph(model, batch, 2)
    assert unlike(expected[1]["visual_projection.weight"], other[1]["visual_projection.weight"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_dropout_is_replayed_on_a_gpu(precision):
    accelerator = new_accelerator(cpu=False, mixed_precision=precision)
    encoder = accelerator.prepare(PairEncoder(training_model(**DROPOUT)))
    batch = {name: tensor.to(accelerator.device) for name, tensor in pair_batch().items()}
    cache = GradientCache(accelerator, encoder, batch, 2)
    text, video, *_ = cache.encode()
    drawn, again = torch.get_device_module().get_rng_state(), []
    encoder.register_forward_hook(
        lambda module, args, output: again.append([side.pooler_output for side in output[:2]])
    )
    (text.pooler_output.sum() + video.pooler_output.sum()).backward()
    cache.scale.grad = torch.zeros_like(cache.scale)
    cache.backward(synchronize=True)
    for first, parts in zip((text, video), zip(*again, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(parts), first.pooler_output, atol=1e-3, rtol=1e-3)
    assert torch.equal(torch.get_device_module().get_rng_state(), drawn)


@pytest.mark.parametrize(
    "frozen",
    [
        lambda name: not name.startswith(HIERARCHY),
        lambda name: name.startswith(HIERARCHY),
        lambda name: name.startswith(("text_", "logit_scale")),
        lambda name: name != "logit_scale",
    ],
    ids=["towers", "hierarchy", "text and scale", "all but the scale"],
)
def test_frozen_parts(frozen):
    model, batch = training_model(), pair_batch()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen(name))
    expected = undivided(model, batch)
    assert any(value is None for value in expected[1].values()) and any(v is not None for v in expected[1].values())
    assert_same(cached(model, batch, 4), expected)


def test_levels_that_weigh_nothing_give_no_gradient():
    model = training_model(loss_weights={"frame_word": 1.0, "clip_phrase": 0.0, "video_sentence": 0.0})
    model.config.marginal_weight = 0.0
    expected = undivided(model, pair_batch())
    assert any(value is None for value in expected[1].values())
    assert_same(cached(model, pair_batch(), 4), expected)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_gradient_checkpointing(reentrant):
    model, batch = training_model(**DROPOUT), pair_batch()
    torch.manual_seed(5)
    expected = in_chunks_with_a_graph(model, batch, 4)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    torch.manual_seed(5)
    assert_same(cached(model, batch, 4), expected)


def test_bf16():
    batch, plain, divided = pair_batch(), training_model(), training_model()
    exact, _ = undivided(plain, batch)
    accelerator = new_accelerator(mixed_precision="bf16")
    plain.zero_grad()
    objective = objective_of(accelerator.prepare(PairEncoder(plain))(batch), plain, batch)
    objective.loss.backward()
    assert objective.loss != exact.loss
    found, found_gradients = cached(divided, batch, 4, accelerator)
    assert found.loss.item() == pytest.approx(objective.loss.item(), rel=1e-2)
    for name, expected in gradients(plain).items():
        assert (found_gradients[name] - expected).norm() < 0.1 * expected.norm().clamp(min=1e-3), name
