"""Warm children are as processes of their own: outputs, exit codes, signals, and what torchrun tells its ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm import WarmChild, run_ranks, run_warm

pytestmark = pytest.mark.slow
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")


def test_a_child_is_as_a_process_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text("import os, sys\nprint(sys.argv[1:], os.environ['A'])\nprint('no', file=sys.stderr)\nsys.exit(3)\n")
    for how in ([file], ["-c", file.read_text()]):
        done = run_warm(*how, "b", env={**os.environ, "A": "1"})
        assert (done.returncode, done.stdout, done.stderr) == (3, "['b'] 1\n", "no\n")
    failed = run_warm("-c", "1 / 0")
    assert failed.returncode == 1
    assert "ZeroDivisionError" in failed.stderr
    child = WarmChild(
        "-c", "print(__import__('os').getsid(0), flush=True)\nimport time\ntime.sleep(60)", start_new_session=True
    )
    assert int(child.stdout.readline()) == child.pid != os.getsid(0)
    child.send_signal(signal.SIGTERM)
    child.communicate()
    assert child.returncode == -signal.SIGTERM
    with pytest.raises(AssertionError, match="process of its own"):
        run_warm("-c", "", env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})


def test_ranks_are_told_what_torchrun_tells(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "import json, os\nhas_port = 'MASTER_PORT' in os.environ\n"
        f"print(json.dumps([has_port, *map(os.environ.get, {NAMES})]))\n"
    )
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no-python", sys.executable)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    ran = subprocess.run([sys.executable, *launch, file], env=environment, capture_output=True, text=True, check=True)
    expected = sorted(json.loads(line) for line in ran.stdout.splitlines())
    actual = sorted(json.loads(rank.stdout) for rank in run_ranks(2, file))
    assert [one[1] for one in actual] == ["0", "1"]
    assert [one[:5] + one[6:] for one in actual] == [one[:5] + one[6:] for one in expected]
