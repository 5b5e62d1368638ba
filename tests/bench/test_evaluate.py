import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "bench" / "evaluate.py"


def test_the_plain_loop_and_ours_agree_and_are_written_beside_the_limit(tmp_path):
    out = tmp_path / "evaluate.json"
    sizes = ["--texts", "70", "--videos", "65", "--words", "9", "--frames", "5", "--width", "16", "--threads", "1"]
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), *sizes, "--out", str(out)], capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    report = json.loads(out.read_text())
    assert [row["texts"] for row in report["rows"]] == ["full length", "mixed lengths"]
    for row in report["rows"]:
        assert row["difference"] < 1e-6
        assert row["ours"]["sample"] > 0
        assert all(row[name]["seconds"] > 0 and row[name]["gigabytes"] > 0 for name in ("plain", "ours", "limit"))
        assert row["texts"] in finished.stdout
