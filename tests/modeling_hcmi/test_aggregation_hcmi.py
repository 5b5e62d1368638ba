import math

import pytest
import torch
from tiny_hcmi import tiny_config
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from hcmi.modeling_hcmi.aggregation_hcmi import (
    HCMIAggregation,
    HCMIAggregationBlock,
    HCMIAttention,
    HCMIFeedForward,
    masked_softmax,
)


def random_module(cls: type, *args, seed: int = 0, **fields) -> nn.Module:
    config = tiny_config(**fields)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    module = cls(config, *args).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def softmax(logits: list[float]) -> list[float]:
    highest = max(logits)
    exponentials = [math.exp(x - highest) for x in logits]
    return [x / sum(exponentials) for x in exponentials]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_masked_softmax_is_the_softmax_of_the_real_entries(dtype):
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(0)).to(dtype) * 20
    mask = torch.rand(6, 7, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[:, 0] = True
    mask[5] = False
    weights = masked_softmax(logits, mask)
    assert weights.dtype == dtype
    for row, real, got in zip(logits.tolist(), mask.tolist(), weights.tolist(), strict=True):
        assert [w for w, m in zip(got, real, strict=True) if not m] == [0.0] * real.count(False)
        if any(real):
            wanted = softmax([x for x, m in zip(row, real, strict=True) if m])
            assert [w for w, m in zip(got, real, strict=True) if m] == pytest.approx(wanted, rel=1e-2, abs=1e-4)


def test_masked_softmax_of_huge_negative_logits_still_ignores_padding():
    logits = torch.tensor([[-3e38, -3e38, 1e38]])
    weights = masked_softmax(logits, torch.tensor([[True, True, False]]))
    assert weights.tolist() == [[0.5, 0.5, 0.0]]


def test_masked_softmax_passes_no_gradient_to_padding():
    logits = torch.randn(3, 5, requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]]).bool()
    (masked_softmax(logits, mask) * torch.randn(3, 5)).sum().backward()
    assert not logits.grad[~mask].any()
    assert logits.grad.isfinite().all()


def test_feed_forward_is_two_linear_maps_with_quick_gelu_between():
    module = random_module(HCMIFeedForward)
    states = torch.randn(2, 3, 16, dtype=torch.float64)
    hidden = states @ module.fc1.weight.T + module.fc1.bias
    wanted = (hidden / (1 + torch.exp(-1.702 * hidden))) @ module.fc2.weight.T + module.fc2.bias
    torch.testing.assert_close(module(states), wanted)


def attention_by_loops(module: HCMIAttention, queries: torch.Tensor, tokens: torch.Tensor, real: list[bool]):
    """One row: queries (Q, D), tokens (N, D) → (Q, D)."""
    q, k, v = module.q_proj(queries), module.k_proj(tokens), module.v_proj(tokens)
    rows = []
    for i in range(len(queries)):
        parts = []
        for head in range(module.config.aggregation_heads):
            own = slice(head * module.head_dim, (head + 1) * module.head_dim)
            seen = [j for j in range(len(tokens)) if real[j]]
            weights = softmax([float(q[i, own] @ k[j, own]) / math.sqrt(module.head_dim) for j in seen])
            parts.append(sum(w * v[j, own] for w, j in zip(weights, seen, strict=True)))
        rows.append(module.out_proj(torch.cat(parts)))
    return torch.stack(rows)


@torch.no_grad()
def test_attention_is_multi_head_attention_over_real_tokens():
    module = random_module(HCMIAttention)
    queries, tokens = torch.randn(2, 3, 16, dtype=torch.float64), torch.randn(2, 5, 16, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    additive = torch.zeros(2, 1, 1, 5, dtype=torch.float64).masked_fill(~mask[:, None, None], -math.inf)
    got = module(queries, tokens, additive, "eager")
    for row in range(2):
        wanted = attention_by_loops(module, queries[row], tokens[row], mask[row].tolist())
        # The weights are computed in float32.
        torch.testing.assert_close(got[row], wanted, atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
def test_aggregation_follows_its_formula(layers):
    module = random_module(HCMIAggregation, 3, aggregation_layers=layers)
    tokens = torch.randn(2, 5, 16, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    groups, contextual, assignment = module(tokens, mask, num_groups=2)
    assert groups.shape == (2, 2, 16)
    for row, real in enumerate(mask.tolist()):
        states = tokens[row]
        for block in module.layers:
            normed = block.layer_norm1(states)
            states = states + attention_by_loops(block.self_attn, normed, normed, real)
            states = states + block.mlp(block.layer_norm2(states))
        seen = [j for j in range(5) if real[j]]
        torch.testing.assert_close(contextual[row, seen], states[seen], atol=1e-6, rtol=1e-5)

        queries = module.group_queries[:2]
        refined = attention_by_loops(module.pooling_attn, queries, states, real)
        for k in range(2):
            weights = softmax([float(queries[k] @ states[j]) / math.sqrt(16) for j in seen])
            pooled = sum(w * states[j] for w, j in zip(weights, seen, strict=True))
            torch.testing.assert_close(groups[row, k], pooled + refined[k], atol=1e-6, rtol=1e-5)
            assert assignment[row, k, seen].tolist() == pytest.approx(weights, abs=1e-6)
        assert not assignment[row, :, ~mask[row]].any()


def test_the_layers_can_be_checkpointed():
    assert issubclass(HCMIAggregationBlock, GradientCheckpointingLayer)


def test_dropout_acts_in_training_only():
    module = random_module(HCMIAggregation, 2, aggregation_dropout=0.5)
    tokens, mask = torch.randn(2, 5, 16, dtype=torch.float64), torch.ones(2, 5, dtype=torch.bool)
    assert torch.equal(module(tokens, mask, 2)[0], module(tokens, mask, 2)[0])
    module.train()
    assert not torch.equal(module(tokens, mask, 2)[0], module(tokens, mask, 2)[0])
