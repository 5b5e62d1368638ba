"""Aggregation: many tokens attend to each other and are regrouped into fewer. One class serves all four places."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_hcmi import HCMIConfig


def masked_softmax(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Softmax over the last dimension among the entries where `mask` holds, computed in float32; exactly zero elsewhere,
    and all zero in a row without entries. `mask` is broadcast to `logits`.
    """
    weights = logits.float().masked_fill(~mask, torch.finfo(torch.float32).min).softmax(-1)
    return weights.masked_fill(~mask, 0.0).to(logits.dtype)


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention, `(B, heads, N, d)` each; the mask is added to the logits."""
    logits = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        logits = logits + attention_mask
    weights = nn.functional.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class HCMIAttention(nn.Module):
    """Multi-head attention: of tokens to each other, or of pooling queries to tokens."""

    def __init__(self, config: HCMIConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.projection_dim // config.aggregation_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.aggregation_dropout
        self.is_causal = False
        self.q_proj = nn.Linear(config.projection_dim, config.projection_dim)
        self.k_proj = nn.Linear(config.projection_dim, config.projection_dim)
        self.v_proj = nn.Linear(config.projection_dim, config.projection_dim)
        self.out_proj = nn.Linear(config.projection_dim, config.projection_dim)

    def forward(
        self, queries: torch.Tensor, tokens: torch.Tensor, attention_mask: torch.Tensor | None, implementation: str
    ) -> torch.Tensor:
        """`queries` (B, Q, D), `tokens` (B, N, D), `attention_mask` in the form of the implementation → (B, Q, D)."""

        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)

        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        mixed, _ = attention(
            self,
            heads(self.q_proj(queries)),
            heads(self.k_proj(tokens)),
            heads(self.v_proj(tokens)),
            attention_mask,
            scaling=self.scaling,
            dropout=self.dropout if self.training else 0.0,
            is_causal=False,
        )
        return self.out_proj(mixed.reshape(queries.shape).contiguous())


class HCMIFeedForward(nn.Module):
    """Two linear maps with QuickGELU between them, as in CLIP."""

    def __init__(self, config: HCMIConfig):
        super().__init__()
        self.config = config
        self.fc1 = nn.Linear(config.projection_dim, config.aggregation_intermediate_size)
        self.fc2 = nn.Linear(config.aggregation_intermediate_size, config.projection_dim)
        self.dropout = nn.Dropout(config.aggregation_dropout)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        hidden = self.fc1(states)
        return self.dropout(self.fc2(hidden * torch.sigmoid(1.702 * hidden)))


class HCMIAggregationBlock(GradientCheckpointingLayer):
    """`H = X + MHA(LN(X)); H = H + FFN(LN(H))` [C]."""

    def __init__(self, config: HCMIConfig):
        super().__init__()
        self.config = config
        self.layer_norm1 = nn.LayerNorm(config.projection_dim)
        self.self_attn = HCMIAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.projection_dim)
        self.mlp = HCMIFeedForward(config)

    def forward(self, tokens: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        normed = self.layer_norm1(tokens)
        tokens = tokens + self.self_attn(normed, normed, attention_mask, self.config._attn_implementation)
        return tokens + self.mlp(self.layer_norm2(tokens))


class HCMIAggregation(nn.Module):
    """
    `N` tokens become `K` groups [A]: self-attention and a feed-forward layer gather tokens of similar meaning, then
    `K` learned queries pool softly [C]: `S = softmax_j(q_k · h_j / sqrt(D))`, `out = S·H + MHA(q, H, H)`, the second
    term's output projection starting at zero.
    """

    def __init__(self, config: HCMIConfig, num_groups: int):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList([HCMIAggregationBlock(config) for _ in range(config.aggregation_layers)])
        self.group_queries = nn.Parameter(torch.randn(num_groups, config.projection_dim))
        self.pooling_attn = HCMIAttention(config)

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, num_groups: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            tokens (`(B, N, D)`), mask (`(B, N)`, bool): tokens and which of them are real.
            num_groups: how many of the learned queries pool, from the first.

        Returns:
            groups `(B, K, D)`, contextual tokens `H` `(B, N, D)`, and the soft assignment `S` `(B, K, N)`, whose rows
            sum to 1 over the real tokens.
        """
        # A mask that is all true is left out; a meta tensor has no values to look at.
        attention_mask = create_bidirectional_mask(
            self.config, tokens, mask, allow_is_bidirectional_skip=mask.device.type != "meta"
        )
        for layer in self.layers:
            tokens = layer(tokens, attention_mask)

        queries = self.group_queries[:num_groups].to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        logits = queries @ tokens.transpose(-1, -2) * self.config.projection_dim**-0.5
        assignment = masked_softmax(logits, mask[:, None])
        # Few queries on few tokens: a fused kernel wins nothing, and flash attention cannot mask a cross-attention.
        additive = torch.zeros_like(mask, dtype=tokens.dtype).masked_fill(~mask, torch.finfo(tokens.dtype).min)
        groups = assignment @ tokens + self.pooling_attn(queries, tokens, additive[:, None, None], "eager")
        return groups, tokens, assignment
