"""Where CI looks on, a skipped test fails, unless what it misses is the real data and that is absent indeed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = """
import pytest

def test_program(need):
    need("no-such-program", "no-such-package")

def test_data(shared_data):
    pass

@pytest.mark.skip(reason="some day")
def test_marked():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_known():
    assert False
"""


@pytest.mark.parametrize(
    ("ci", "data", "outcome"),
    [
        ("", False, "3 skipped, 1 xfailed"),
        ("", True, "1 passed, 2 skipped, 1 xfailed"),
        ("true", False, "1 failed, 1 skipped, 1 xfailed, 1 error"),
        ("true", True, "1 failed, 1 passed, 1 xfailed, 1 error"),
    ],
)
def test_skips_fail_in_ci(tmp_path: Path, ci: str, data: bool, outcome: str) -> None:
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "pytest.ini").write_text("[pytest]")
    (tmp_path / "there").mkdir()
    env = os.environ | {"CI": ci, "PENSTOCK_SHARED_DATA": str(tmp_path / ("there" if data else "absent"))}
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "--color=no"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    assert outcome in said.splitlines()[-1], said
    assert "apt-get install no-such-package" in said


def test_a_skip_while_collecting_fails_too(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (tmp_path / "test_cases.py").write_text('import pytest\npytest.importorskip("no_such_module")')
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=tmp_path, env=os.environ | {"CI": "true"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "CI skips nothing" in done.stdout
