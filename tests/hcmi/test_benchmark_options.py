import argparse
import inspect

import pytest

from hcmi.commands.benchmark_options import add_benchmark_options, benchmark_place
from hcmi.train.data.benchmarks import load_benchmark


def place(*argv):
    parser = argparse.ArgumentParser()
    add_benchmark_options(parser)
    return benchmark_place(parser.parse_args(argv))


def test_nothing_said_is_the_benchmarks_own_place():
    assert place() == {"annotations": None, "videos": None, "protocol": None, "allow_missing": False}


def test_every_option_arrives_under_its_name():
    said = place("--annotations", "a", "--videos", "v", "--protocol", "p", "--allow-missing")
    assert said == {"annotations": "a", "videos": "v", "protocol": "p", "allow_missing": True}


def test_they_are_keywords_of_load_benchmark():
    assert set(place()) <= set(inspect.signature(load_benchmark).parameters)


def test_missing_videos_are_allowed_without_a_value_only():
    with pytest.raises(SystemExit, match="2"):
        place("--allow-missing=yes")
