"""How attention is computed: in the training step as the arguments say, in evaluation in float32."""

from collections.abc import Iterator
from contextlib import contextmanager

from hcmi.modeling_hcmi import HCMIModel

FLASH = "flash"
"""Part of the names of implementations that take 16-bit numbers alone, also of those that come from the Hub instead."""


def set_attention(model: HCMIModel, implementation: str) -> None:
    """
    Has the towers and the hierarchy compute attention in this way from now on.

    Args:
        model: is changed in place; what is saved of it does not tell.
        implementation: of `transformers`' names, such as "sdpa".

    Raises:
        ValueError: it needs a package or a device that is not there.
    """
    try:
        model.set_attn_implementation(implementation)
    except (ImportError, ValueError) as error:
        raise ValueError(f"attention {implementation} is not possible here: {error}") from error


@contextmanager
def evaluation_attention(model: HCMIModel) -> Iterator[None]:
    """Within it a model that trains with flash attention under autocast computes in float32, with PyTorch's own."""
    training = model.config._attn_implementation
    if FLASH not in training:
        yield
        return
    model.set_attn_implementation("sdpa")
    yield
    model.set_attn_implementation(training)
