"""Trains a model: `accelerate launch train/run.py --config train/configs/shape_stories.yaml [--field value …]`."""

import sys

from hcmi.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
