"""
HCMI: text-video retrieval by Hierarchical Cross-Modal Interaction.

The public names are imported when they are used. After `import hcmi`, the `AutoConfig`, `AutoModel` and `AutoProcessor`
of transformers know the model type "hcmi", and its `pipeline` the task "text-video-retrieval".
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .registration import register_when_imported

if TYPE_CHECKING:
    from hcmi.modeling_hcmi import (
        HCMIConfig,
        HCMIModel,
        HCMIOutput,
        HCMISimilarity,
        HCMITextFeatures,
        HCMIVideoFeatures,
        concatenate_features,
    )
    from hcmi.processing import HCMIProcessor, VideoReadError
    from hcmi.retrieval import EncodedVideos, HCMIRetrievalPipeline, VideoIndex

_MODULES = {
    "HCMIConfig": "hcmi.modeling_hcmi",
    "HCMIModel": "hcmi.modeling_hcmi",
    "HCMIOutput": "hcmi.modeling_hcmi",
    "HCMISimilarity": "hcmi.modeling_hcmi",
    "HCMITextFeatures": "hcmi.modeling_hcmi",
    "HCMIVideoFeatures": "hcmi.modeling_hcmi",
    "concatenate_features": "hcmi.modeling_hcmi",
    "HCMIProcessor": "hcmi.processing",
    "VideoReadError": "hcmi.processing",
    "EncodedVideos": "hcmi.retrieval",
    "HCMIRetrievalPipeline": "hcmi.retrieval",
    "VideoIndex": "hcmi.retrieval",
}

__version__ = version("hcmi")

__all__ = [
    "EncodedVideos",
    "HCMIConfig",
    "HCMIModel",
    "HCMIOutput",
    "HCMIProcessor",
    "HCMIRetrievalPipeline",
    "HCMISimilarity",
    "HCMITextFeatures",
    "HCMIVideoFeatures",
    "VideoIndex",
    "VideoReadError",
    "__version__",
    "concatenate_features",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
