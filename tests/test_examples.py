"""The example notebooks do what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", EXAMPLES, ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    """The notebook runs top to bottom, in a process of its own, warnings being errors."""
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join(code))
    command = [sys.executable, "-W", "error", str(script)]
    environment = {"TMPDIR": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "events are durable" in done.stdout


def test_notebooks_hold_no_output() -> None:
    """What is checked in is the notebook as written: no output of some machine's run."""
    assert EXAMPLES
    for notebook in EXAMPLES:
        for cell in json.loads(notebook.read_text())["cells"]:
            assert not cell.get("outputs"), notebook.name
