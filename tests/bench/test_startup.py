import importlib.util
from pathlib import Path

import pytest
from tiny_hcmi import tiny_model

spec = importlib.util.spec_from_file_location("startup", Path(__file__).parents[2] / "bench" / "startup.py")
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)


def figures(seconds: float, gigabytes: float = 1.0) -> dict[str, float]:
    return {"seconds": seconds, "cpu_seconds": seconds, "gigabytes": gigabytes}


def test_loading_is_measured(tmp_path):
    tiny_model().save_pretrained(tmp_path / "hcmi")
    programs = bench.load_programs(str(tmp_path))
    assert set(programs) == {"old", "new", "limit"}
    row = bench.measure({"new": programs["new"]}, 1, 1)
    assert row["new"]["seconds"] > 0
    assert 0.1 < row["new"]["gigabytes"] < 4
    assert bench.table_row("load", row).count(" s (CPU") == 1


def test_a_failing_program_is_told_with_its_message():
    with pytest.raises(SystemExit, match=r"(?s)new fails.*ZeroDivisionError"):
        bench.measure({"new": ("1 / 0", "")}, 1, 1)


def test_targets():
    rows = {
        "import": {"old": figures(1.0), "new": figures(1.06), "both": figures(1.04)},
        "load": {"old": figures(1.0), "new": figures(1.1, 1.3), "limit": figures(0.5)},
    }
    kept = {verdict.split(":")[0] + verdict.partition("'s ")[2][:7]: ok for verdict, ok in bench.judge(rows).items()}
    assert kept == {
        "import hcmi": False,
        "import transformers, hcmi": True,
        "loadingtime (a": True,
        "loadingmemory ": False,
    }
