"""Publish a trained model on the Hugging Face Hub: weights, processor, code, card, result and arguments in one commit.

  hf auth login                                  (once; or set HF_TOKEN)
  hcmi publish runs/mine owner/name --private

The folder is a training run's, or a model's; nothing in it is changed. A failed upload goes on where it broke off when
the command is given again.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `hcmi publish`."""
    parser.add_argument("folder", metavar="FOLDER", help="of a training run, or of a model with its processor")
    parser.add_argument(
        "repo_id", metavar="OWNER/NAME", help="the model's name on the Hub; made where it does not exist"
    )
    parser.add_argument("--private", action="store_true", help="only the owner sees it (default: everybody does)")


def run(arguments: argparse.Namespace) -> int:
    """
    Runs `hcmi publish`.

    Raises:
        ValueError: no whole model, an impossible name, or a repository that is public though it should be private.
        PublishingError: the Hub refused, or could not be reached.
    """
    from transformers.utils import logging

    from hcmi.train.publishing import publish

    # The bars of loading and saving say nothing; those of the upload are the client's.
    logging.disable_progress_bar()
    print(f"published: {publish(arguments.folder, arguments.repo_id, private=arguments.private)}")
    return 0
