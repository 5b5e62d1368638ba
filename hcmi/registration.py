"""
Makes transformers know HCMI as soon as somebody uses its Auto classes or pipelines, and not before.

Registering takes the classes themselves, hence torch and most of transformers: seconds, which `import hcmi` and
`hcmi --help` should not cost. So each registration waits until the module with the registry has been imported, and
until no import of transformers or of this package is under way any more: their modules import each other in circles
(CLIP's model file imports the Auto classes, for instance), and a half imported module has no class to give.

The classes themselves are prepared in the same way: what they save carries its code, so that it can be loaded where
this package is not installed, with `trust_remote_code=True`. So is the Hub's client, see `hub_waiting`.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def _register_config() -> None:
    from transformers import AutoConfig

    from hcmi.modeling_hcmi import HCMIConfig

    AutoConfig.register(HCMIConfig.model_type, HCMIConfig)


def _register_model() -> None:
    from transformers import AutoModel

    from hcmi.modeling_hcmi import HCMIConfig, HCMIModel

    AutoModel.register(HCMIConfig, HCMIModel)


def _register_processor() -> None:
    from transformers import AutoProcessor

    from hcmi.modeling_hcmi import HCMIConfig
    from hcmi.processing import HCMIProcessor

    AutoProcessor.register(HCMIConfig, HCMIProcessor)


def _register_pipeline() -> None:
    from transformers import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from hcmi.retrieval import HCMIRetrievalPipeline

    PIPELINE_REGISTRY.register_pipeline(
        "text-video-retrieval", pipeline_class=HCMIRetrievalPipeline, pt_model=AutoModel, type="multimodal"
    )


def _limit_waiting() -> None:
    from .hub_waiting import limit_waiting

    limit_waiting()


def _prepare_model() -> None:
    from hcmi.modeling_hcmi import HCMIConfig, HCMIModel

    HCMIConfig.register_for_auto_class()
    HCMIModel.register_for_auto_class()
    # A saved pipeline's model names the copy of the pipeline that lies beside it, and transformers would insist on
    # trusting that one, though the pipeline is at hand here. Not saved either: only the pipeline puts the copy there.
    HCMIConfig.custom_pipelines = property(lambda config: {}, lambda config, value: None)  # type: ignore[attr-defined]


def _prepare_processor() -> None:
    from hcmi.processing import HCMIProcessor

    HCMIProcessor.register_for_auto_class()


_pending: dict[str, Callable[[], None]] = {
    "hcmi.modeling_hcmi": _prepare_model,
    "hcmi.processing": _prepare_processor,
    "huggingface_hub.utils._http": _limit_waiting,
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.models.auto.modeling_auto": _register_model,
    "transformers.models.auto.processing_auto": _register_processor,
    "transformers.pipelines": _register_pipeline,
}
"""Module with a class or a registry -> what to do once it is there."""


class _ImportWatcher(MetaPathFinder):
    """Finds nothing itself, but notices when the last nested import of these packages is done."""

    def __init__(self) -> None:
        self._this_thread = threading.local()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not _pending or name.partition(".")[0] not in ("transformers", "huggingface_hub", "hcmi"):
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = self._watched(spec.loader.exec_module)  # type: ignore[method-assign, assignment]
        return spec

    def _watched(self, execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
        def exec_module(module: ModuleType) -> None:
            outer = getattr(self._this_thread, "depth", 0)
            self._this_thread.depth = outer + 1
            try:
                execute(module)
            finally:
                self._this_thread.depth = outer
            if outer == 0:
                _register_imported()

        return exec_module


def _register_imported() -> None:
    for module in list(_pending):
        # Registering imports more modules, which may bring other registrations forward.
        if module in sys.modules and (register := _pending.pop(module, None)):
            register()


def register_when_imported() -> None:
    """Registers what can be registered now, and the rest when its registry is imported."""
    _register_imported()
    if _pending:
        sys.meta_path.insert(0, _ImportWatcher())
