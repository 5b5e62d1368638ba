import pytest

from hcmi.train.arguments import TrainingArguments


@pytest.mark.parametrize(
    ("given_fields", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": -1}, "batch_size must be at least 1"),
        ({"frames_per_video": 0}, "frames_per_video must be at least 1"),
        ({"evaluation_batch_size": 0}, "evaluation_batch_size must be at least 1"),
        ({"candidate_frames": 11}, r"candidate_frames must be 0 or at least frames_per_video \(12\), not 11"),
        ({"frame_store": "raw"}, "frame_store needs candidate_frames"),
        ({"candidate_frames": 24, "frame_folder": "here"}, "frame_folder needs frame_store"),
        ({"candidate_frames": -1}, "candidate_frames must be 0 or at least"),
        ({"warmup_share": 1.0}, "warmup_share must be at least 0 and less than 1, not 1.0"),
        ({"warmup_share": float("nan")}, "warmup_share"),
        ({"denoising_start": 1.0}, "denoising_start"),
        ({"ema_decay": -0.1}, "ema_decay"),
        ({"learning_rate": -1e-4}, "learning_rate must be at least 0"),
        ({"tower_learning_rate": float("nan")}, "tower_learning_rate must be at least 0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
        ({"checkpoint_every": -1}, "checkpoint_every must be at least 0"),
        ({"reader_timeout": -1.0}, "reader_timeout must be at least 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
        ({"cpu_threads": 0}, "cpu_threads must be at least 1"),
        ({"processes": 0}, "processes must be at least 1"),
        ({"attention": "flash"}, "attention must be one of eager, sdpa, flash_attention_2, flash_attention_3"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm must be positive"),
        ({"tracker": "diary"}, "tracker must be one of tensorboard, wandb, none, not 'diary'"),
        ({"mixed_precision": "fp8"}, "mixed_precision must be one of no, bf16, fp16"),
        ({"freeze": ["towers", "head"]}, "freeze must be one of towers, hierarchy, not 'head'"),
    ],
)
def test_impossible_values_are_refused_with_the_field(given_fields, message):
    with pytest.raises(ValueError, match=message):
        TrainingArguments(model="clip", **given_fields)


def test_a_run_starts_from_a_checkpoint_or_from_a_configuration():
    for fields_given in ({}, {"model": "clip", "model_config": "tiny.json"}):
        with pytest.raises(ValueError, match="either `model`"):
            TrainingArguments(**fields_given)


def test_the_settings_are_what_makes_a_run_what_it_is():
    settings = TrainingArguments(model="clip", epochs=3, output="here", num_workers=2).settings()
    assert (settings["epochs"], settings["seed"], settings["model"]) == (3, 0, "clip")
    assert not {"output", "resume", "num_workers", "tracker", "cpu_threads", "videos"} & set(settings)
    assert not {"attention", "compile"} & set(settings)
