import doctest
import importlib
import pkgutil

import pytest

from hcmi import modeling_hcmi

MODULES = [f"{modeling_hcmi.__name__}.{module.name}" for module in pkgutil.iter_modules(modeling_hcmi.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("function", [
    "interaction_hcmi.token_wise_similarity",
    "objective_hcmi.denoised_positives",
    "objective_hcmi.multi_positive_contrast",
    "objective_hcmi.marginal_sample_loss",
    "moments_hcmi.relevant_span",
    "moments_hcmi.clip_time_spans",
])  # fmt: skip
def test_the_methods_functions_have_a_worked_example(function):
    module, name = function.split(".")
    found = getattr(importlib.import_module(f"{modeling_hcmi.__name__}.{module}"), name)
    assert doctest.DocTestParser().get_examples(found.__doc__)
