from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType
from training_runs import differing, steps, weights

from hcmi.train.accelerating import make_accelerator, refuse_impossible

pytestmark = pytest.mark.usefixtures("no_picture")

# One step.
SHORT = {"epochs": 1, "batch_size": 32, "config_overrides": {"label_denoising": False}}


@pytest.fixture
def compiled(monkeypatch):
    """What is compiled; without the last stage, which writes code for the processor and takes minutes for a model."""
    seen, real = [], torch.compile

    def compile(what, **_):
        seen.append(what)
        return real(what, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile)
    yield seen
    torch.compiler.reset()


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps the settings of a process's first accelerator."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_a_compiled_step_has_the_same_losses_and_leaves_an_ordinary_model(run, compiled, models, tmp_path):
    plain = run(tmp_path / "plain", **SHORT)
    assert not compiled
    outcome = run(tmp_path / "compiled", **SHORT, compile=True)
    assert [type(what).__name__ for what in compiled[1:]] == ["PairEncoder"] and compiled[1].model is models[1][0]
    for expected, record in zip(steps(plain), steps(outcome), strict=True):
        assert record == pytest.approx(expected, rel=1e-5)
    assert not any("_orig_mod" in name for name in weights(outcome.model))
    # A run may go on without it.
    assert not differing(weights(run(tmp_path / "compiled", **SHORT).model), weights(outcome.model))


def test_compiled_chunks_have_the_same_losses(run, compiled, tmp_path):
    plain, outcome = (run(tmp_path / str(on), **SHORT, chunk_size=16, compile=on) for on in (False, True))
    for expected, record in zip(steps(plain), steps(outcome), strict=True):
        assert record == pytest.approx(expected, rel=1e-5)


def test_without_a_compiler_nothing_begins(run, monkeypatch, tmp_path):
    def compile(_):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(ValueError, match=r"torch\.compile does not work here: No working C\+\+ compiler"):
        run(tmp_path / "run", compile=True)
    assert not (tmp_path / "run").exists()


def test_the_launchers_choice_counts_where_the_arguments_say_nothing(
    arguments_for, fresh_accelerate, monkeypatch, tmp_path
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    accelerator = make_accelerator(arguments_for(tmp_path))
    assert accelerator.mixed_precision == "bf16" and accelerator.state.dynamo_plugin.backend.value == "EAGER"


@pytest.mark.parametrize("field", [{"ema_decay": 0.9}, {"lora_rank": 2}])
def test_what_needs_whole_weights_is_refused_where_they_are_divided(arguments_for, tmp_path, field):
    fsdp, ddp = (
        SimpleNamespace(distributed_type=kind, mixed_precision="no")
        for kind in (DistributedType.FSDP, DistributedType.MULTI_GPU)
    )
    with pytest.raises(ValueError, match="ema_decay and lora_rank do not work with FSDP"):
        refuse_impossible(arguments_for(tmp_path, **field), fsdp)
    refuse_impossible(arguments_for(tmp_path, **field), ddp)
    refuse_impossible(arguments_for(tmp_path), fsdp)


def test_threads_are_as_many_as_were_asked_for(arguments_for, fresh_accelerate, tmp_path):
    before = torch.get_num_threads()
    try:
        make_accelerator(arguments_for(tmp_path, cpu_threads=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
