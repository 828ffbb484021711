"""initlint as a process: what it imports, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def test_importing_initlint_is_light() -> None:
    script = (
        "import sys, initlint; sys.exit(bool({'numpy', 'onnx', 'rich', 'click', 'initlint.plugin'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_help_imports_neither_numpy_nor_onnx_nor_rich() -> None:
    script = (
        "import sys; from initlint.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: sys.exit(bool({'numpy', 'onnx', 'rich', 'initlint.plugin'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_a_reader_that_leaves_early_is_no_fault() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "initlint", "gone.onnx", "--isolated"]
    finished = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (finished.returncode, finished.stderr) == (2, "")


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
@pytest.mark.usefixtures("interruptible")
def test_control_c_ends_a_real_process_with_130(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from initlint import checking, cli\n"
        "def wait(*a, **k):\n"
        "    print('ready', flush=True, file=sys.__stdout__)\n"
        "    time.sleep(60)\n"
        "checking.check_target = wait\n"
        "cli.main(['model.onnx', '--isolated'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in complaint
