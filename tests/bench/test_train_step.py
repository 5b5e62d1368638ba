from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from bench_scripts import load_script
from tiny_hcmi import random_texts, random_videos, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from hcmi.modeling_hcmi import hcmi_objective

flops, steps, report_of, bench = (load_script(name) for name in ("flops", "steps", "step_report", "train_step"))

SETTINGS = steps.Settings(
    model="small", batch=3, frames=5, image_size=32, words=9, attention="eager", warmup=0, repeats=2, matrix=32
)
ON_AN_ABACUS = {"hardware": "an abacus", "versions": {"beads": "9"}}
SIZES = {"batch": 3, "frames": 5, "words": 9}


@pytest.fixture(autouse=True)
def new_accelerator_state():
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def counted(work):
    with FlopCounterMode(display=False) as counter:
        result = work()
    return result, counter.get_flop_counts()


def total(counts, module):
    return sum(counts[module].values())


@pytest.mark.parametrize(
    "fields", [{}, {"num_clips": 9, "num_phrases": 3, "aggregation_layers": 2, "clip_phrase_interaction": "max_mean"}]
)
def test_the_forward_has_as_many_flops_as_pytorch_counts(fields):
    model = tiny_model(attn_implementation="eager", **fields)
    expected = flops.forward_flops(model.config, **SIZES)
    video, of_video = counted(lambda: model.get_video_features(random_videos(3, 5)))
    text, of_text = counted(lambda: model.get_text_features(**random_texts((9, 6, 4))))
    projections = {"text tower": 3 * 2 * 32 * 16, "video tower": 3 * 5 * 2 * 32 * 16, "words": 3 * 9 * 2 * 32 * 16}
    assert expected["video tower"] == total(of_video, "CLIPVisionModel") + projections["video tower"]
    assert expected["text tower"] == total(of_text, "CLIPTextModel") + projections["text tower"]
    hierarchies = total(of_video, "HCMIHierarchy") + total(of_text, "HCMIHierarchy")
    assert expected["hierarchy"] == hierarchies + projections["words"]
    _, of_objective = counted(lambda: hcmi_objective(text, video, model.scale(), model.config))
    # PyTorch also counts how the tokens of one text are weighted.
    assert expected["objective"] == pytest.approx(total(of_objective, "Global"), rel=0.05)


def test_a_step_has_as_many_flops_as_pytorch_counts():
    _, counts = counted(steps.hcmi_one_view(SETTINGS, steps.Stopwatch(SETTINGS)))
    # The first layer's backward has no gradient of the pixels to compute.
    assert sum(bench.flops_of("HCMI, one view", SETTINGS).values()) == pytest.approx(total(counts, "Global"), rel=0.1)


def test_the_second_view_is_a_forward_more():
    one, two = (flops.step_flops(SETTINGS.config(), **SIZES, second_view=second) for second in (False, True))
    forward = flops.forward_flops(SETTINGS.config(), **SIZES)
    assert two["video tower"] - one["video tower"] == forward["video tower"]
    assert 0 < two["hierarchy"] - one["hierarchy"] < forward["hierarchy"]
    assert one == {part: 3 * number for part, number in forward.items()}


def test_mean_pooled_clip_is_an_untrained_hcmi():
    model, batch = steps.new_model(SETTINGS), steps.new_batch(SETTINGS, 1)
    sentences, videos, scale = steps.MeanPooledCLIP(model)(batch)
    text = model.get_text_features(batch["input_ids"], batch["attention_mask"])
    video = model.get_video_features(batch["pixel_values_videos"], batch["video_mask"])
    torch.testing.assert_close(sentences, text.pooler_output)
    torch.testing.assert_close(videos, video.pooler_output)
    torch.testing.assert_close(scale, model.scale())


def test_a_batch_in_chunks_is_the_same_step():
    whole, parts = (
        steps.hcmi(settings, steps.Stopwatch(settings))() for settings in (SETTINGS, replace(SETTINGS, chunk_size=2))
    )
    assert whole.item() == pytest.approx(parts.item(), rel=1e-5)


def test_every_way_is_measured_and_compared():
    ways = {way: bench.measure(way, SETTINGS) for way in steps.WAYS}
    for figures in ways.values():
        assert min(figures[name] for name in ("seconds", "cpu_seconds", "flop", "gigabytes")) > 0
        assert sum(figures["breakdown"].values()) == pytest.approx(1)
        assert {"video tower", "text tower", "backward"} <= set(figures["breakdown"])
    assert "no gradient" not in ways["HCMI, one view"]["breakdown"]
    assert {"no gradient", "hierarchy", "objective", "optimizer"} <= set(ways["HCMI"]["breakdown"])

    for way, seconds in zip(ways, (2.0, 4.0, 5.0, 6.0), strict=True):
        ways[way] |= {"cpu_seconds": seconds, "seconds": seconds}
    report = report_of.compared(ways, SETTINGS)
    assert report["head_and_objective"]["added"] == pytest.approx(0.25)
    assert report["head_and_objective"]["of_bare_towers"] == pytest.approx(0.5)
    assert report["second_view"]["added"] == pytest.approx(0.2)
    table = report_of.table(report | {"settings": vars(SETTINGS)} | ON_AN_ABACUS)
    assert "HCMI's head and objective add 25.0% of processor time" in table and "an abacus; beads 9" in table
    assert "seed 0" in table
    assert all(f"\n{way}" in table for way in steps.WAYS)


def measured(seconds, flop):
    breakdown = {"backward": 0.8, "clipping": 0.05, "optimizer": 0.15}
    return {
        "seconds": seconds, "cpu_seconds": 2 * seconds, "samples_per_second": 3 / seconds, "flop": flop,
        "flop_per_second": flop / seconds, "matrix_flop_per_second": 1000.0, "share_of_matrix_rate": 0.5,
        "gigabytes": 1.0, "breakdown": breakdown,
    }  # fmt: skip


def test_samples_per_second_beside_what_the_bare_towers_speed_gives():
    # The towers: 3 samples and 400 FLOPs in 2 s. At their speed the 600 FLOPs of HCMI take 3 s, and it takes 4.
    ways = dict(zip(steps.WAYS, (measured(2, 400), measured(3, 400), measured(3, 500), measured(4, 600)), strict=True))
    report = report_of.compared(ways, SETTINGS)
    beside = report["beside_bare_towers"]["HCMI"]
    assert (beside["samples_per_second"], beside["at_their_speed"]) == (0.75, 1.0)
    assert (beside["share"], beside["share_of_cpu_time"]) == (0.75, 0.75)
    assert beside["share_without_optimizer"] == pytest.approx(3 / (4 * 0.8))
    assert report["limit_seconds"] == pytest.approx(0.6)
    lines = report_of.table(report | {"settings": vars(SETTINGS)} | ON_AN_ABACUS).splitlines()
    heads = lines.index(next(line for line in lines if "at their speed" in line and "share of it" in line))
    assert lines[heads + 2].split() == ["HCMI", "0.750", "1.000", "75.0%", "93.8%", "75.0%"]


def test_one_way_alone_is_told_without_comparisons():
    report = report_of.compared({"HCMI": measured(4, 600)}, SETTINGS)
    assert set(report) == {"ways", "clock", "limit_of", "limit_seconds"}
    table = report_of.table(report | {"settings": vars(SETTINGS)} | ON_AN_ABACUS)
    assert "limit of HCMI" in table and "towers alone" not in table and "at their speed" not in table


def test_the_seed_decides_weights_and_batch():
    first, same, other = (steps.hcmi(replace(SETTINGS, seed=seed), steps.Stopwatch(SETTINGS))() for seed in (1, 1, 2))
    assert first == same != other
