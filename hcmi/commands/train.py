"""Train a model on a benchmark: validation after each epoch, the best model tested once at the end.

hcmi train --config train/configs/shape_stories.yaml --output runs/mine --seed 1
accelerate launch train/run.py --config train/configs/shape_stories.yaml     (the same, on several processes too)
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `hcmi train`: one for each field of `TrainingArguments`."""
    from hcmi.train.command_line import build_parser

    build_parser(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs `hcmi train`."""
    from transformers.utils import logging

    from hcmi.train.command_line import from_namespace
    from hcmi.train.loop import train
    from hcmi.train.results import format_result

    # The bars of saving and loading a model would cut the training's own in pieces.
    logging.disable_progress_bar()
    wanted = from_namespace(arguments)
    outcome = train(wanted)
    if outcome is not None:
        print(format_result(outcome.result))
        print(f"\nmodel:   {outcome.model}\nresult:  {outcome.result_file}")
        print(f"curves:  {outcome.curves}\nhistory: {outcome.history}")
        if wanted.push_to_hub:
            from hcmi.train.publishing import publish

            print(f"published: {publish(outcome.model.parent, wanted.push_to_hub, private=wanted.private)}")
    return 0
