"""The hierarchy of one side: frames → clips → video, or words → phrases → sentence (tokens → groups → one vector)."""

from typing import NamedTuple

import torch
from torch import nn

from .aggregation_hcmi import HCMIAggregation, masked_softmax
from .configuration_hcmi import HCMIConfig


class Hierarchy(NamedTuple):
    """Shapes as in `HCMIVideoFeatures`: `N` tokens, `K` groups."""

    tokens: torch.Tensor  # (B, N, D)
    token_weights: torch.Tensor  # (B, N)
    groups: torch.Tensor  # (B, K, D)
    group_mask: torch.Tensor  # (B, K)
    group_weights: torch.Tensor  # (B, K)
    group_token_weights: torch.Tensor  # (B, K, N)
    vector: torch.Tensor  # (B, D)


class HCMITokenWeights(nn.Module):
    """
    Weights of tokens in an interaction: `softmax over real tokens of Linear-ReLU-Linear` of the un-normalised tokens
    (Wang et al., arXiv 2203.07111) [C]; with `"max_mean"` all real tokens weigh the same and nothing is learned.
    """

    def __init__(self, config: HCMIConfig, interaction: str):
        super().__init__()
        self.config = config
        self.fc1 = self.fc2 = None
        if interaction == "weighted":
            self.fc1 = nn.Linear(config.projection_dim, config.projection_dim)
            self.fc2 = nn.Linear(config.projection_dim, 1)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`tokens` (B, N, D), `mask` (B, N) → (B, N), rows sum to 1."""
        if self.fc1 is None or self.fc2 is None:
            logits = torch.zeros_like(mask, dtype=tokens.dtype)
        else:
            logits = self.fc2(torch.relu(self.fc1(tokens))).squeeze(-1)
        return masked_softmax(logits, mask)


class HCMIHierarchy(nn.Module):
    """
    Two aggregation layers, one after the other [A], and the token weights of both levels.

    Args:
        config: the model's configuration.
        max_tokens: the most tokens a row may have.
        tokens_per_group, num_groups: `ceil(tokens / tokens_per_group)` groups, or the fixed number if given.
        with_positions: learn a position for each token (frames; words have CLIP's).
        contextual_tokens: the level's tokens are the contextual ones of the first aggregation layer …
        token_residual: … plus the incoming ones.
        vector_residual: the given pooled vector plus a linear map, initially zero, of the aggregated one.
    """

    def __init__(
        self,
        config: HCMIConfig,
        *,
        max_tokens: int,
        tokens_per_group: int,
        num_groups: int | None,
        with_positions: bool,
        contextual_tokens: bool,
        token_residual: bool,
        vector_residual: bool,
    ):
        super().__init__()
        self.config = config
        self.tokens_per_group = tokens_per_group
        self.num_groups = num_groups
        self.contextual_tokens = contextual_tokens
        self.token_residual = token_residual
        self.vector_residual = vector_residual
        self.position_embedding = nn.Embedding(max_tokens, config.projection_dim) if with_positions else None
        self.group_aggregation = HCMIAggregation(config, num_groups or -(-max_tokens // tokens_per_group))
        self.vector_aggregation = HCMIAggregation(config, 1)
        self.vector_projection = nn.Linear(config.projection_dim, config.projection_dim, bias=False)
        self.token_weights = HCMITokenWeights(config, config.frame_word_interaction)
        self.group_weights = HCMITokenWeights(config, config.clip_phrase_interaction)

    def count_groups(self, num_tokens):
        """Groups that `num_tokens` real tokens make; for an `int` or a tensor of counts."""
        if self.num_groups is None:
            return (num_tokens + self.tokens_per_group - 1) // self.tokens_per_group
        if isinstance(num_tokens, int):
            return min(num_tokens, self.num_groups)
        return num_tokens.clamp(max=self.num_groups)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, pooled: torch.Tensor) -> Hierarchy:
        """`tokens` (B, N, D), `mask` (B, N) bool, `pooled` (B, D): CLIP's own vector for the whole."""
        num_tokens = tokens.shape[1]
        inputs = tokens
        if self.position_embedding is not None:
            inputs = inputs + self.position_embedding(torch.arange(num_tokens, device=tokens.device)).to(tokens.dtype)

        num_groups = self.count_groups(num_tokens)
        groups, contextual, assignment = self.group_aggregation(inputs, mask, num_groups)
        real_groups = self.count_groups(mask.sum(-1))
        group_mask = torch.arange(num_groups, device=mask.device) < real_groups[:, None]

        vector = self.vector_projection(self.vector_aggregation(groups, group_mask, 1)[0].squeeze(1))
        if self.vector_residual:
            vector = vector + pooled
        if self.contextual_tokens:
            tokens = tokens + contextual if self.token_residual else contextual
        return Hierarchy(
            tokens=tokens,
            token_weights=self.token_weights(tokens, mask),
            groups=groups,
            group_mask=group_mask,
            group_weights=self.group_weights(groups, group_mask),
            group_token_weights=assignment,
            vector=vector,
        )
