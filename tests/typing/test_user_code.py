"""What type checkers make of user code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).with_name("user_code.py")


PACKAGE = Path(__file__).parents[2]


def wrong_lines() -> set[int]:
    return {number for number, line in enumerate(CODE.read_text().splitlines(), 1) if "# error" in line}


def test_a_wrong_argument_or_option_is_an_error_of_the_type_checker_and_a_right_one_is_none(tmp_path: Path) -> None:
    """``delay`` has the function's own parameters: sync, async, bound, with and without options."""
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", "--no-error-summary",
         "--follow-imports", "silent", "--ignore-missing-imports", "--cache-dir", str(tmp_path), str(CODE)],
        cwd=PACKAGE, capture_output=True, text=True, check=False,
    )  # fmt: skip

    found = {int(number) for number in re.findall(r"user_code\.py:(\d+): error:", mypy.stdout)}
    assert found == wrong_lines(), mypy.stdout + mypy.stderr


@pytest.mark.skipif(not shutil.which("pyright"), reason="pyright is not installed")
def test_pyright_finds_the_same() -> None:
    pyright = subprocess.run(
        ["pyright", "--pythonpath", sys.executable, "--outputjson", str(CODE)],
        cwd=PACKAGE, capture_output=True, text=True, check=False,
    )  # fmt: skip

    told = json.loads(pyright.stdout)["generalDiagnostics"]
    found = {one["range"]["start"]["line"] + 1 for one in told if one["severity"] == "error"}
    assert found == wrong_lines(), pyright.stdout


def test_a_wrong_number_or_name_of_arguments_is_a_type_error_at_the_call_too() -> None:
    """Not in the worker: before anything is sent."""
    source = CODE.read_text()
    namespace: dict[str, object] = {"__name__": "user_code"}
    exec(compile(source[: source.index("# -- good calls")], str(CODE), "exec", dont_inherit=True), namespace)
    calls = re.findall(r"^(\w+\.delay\(.*\))  # error, also at run time$", source, re.M)

    assert len(calls) == 9
    for call in calls:
        with pytest.raises(TypeError):
            eval(call, namespace)
