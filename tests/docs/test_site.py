"""The documentation hangs together: generated pages, links, the table of contents, the README's two commands."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.pages import ROOT, all_pages, blocks_of, name_of

DOCS = ROOT / "docs"


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_pages_are_what_the_code_says() -> None:
    """Otherwise: python docs/generate.py."""
    for name, text in _generate().pages().items():
        assert (DOCS / "reference" / name).read_text() == text, f"{name}: run python docs/generate.py"


# -- links ------------------------------------------------------------------------------------------------------


def _prose(page: Path) -> str:
    return re.sub(r"^ *(`{3,}).*?^ *\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", _prose(page), re.MULTILINE)
    ids = {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}
    return ids | set(re.findall(r'(?:id=")([\w-]+)"', page.read_text()))


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_internal_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in _anchors(found), f"{name_of(page)} links to {target}: no such heading"


# -- table of contents ------------------------------------------------------------------------------------------


def test_every_page_is_in_the_table_of_contents() -> None:
    there = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))

    assert sorted(re.findall(r"^ +- .+: (\S+\.md)$", _mkdocs(), re.MULTILINE)) == there


def test_the_site_asks_nothing_of_other_hosts() -> None:
    """It can be built and read without a network."""
    assert "font: false" in _mkdocs()
    assert "extra_javascript" not in _mkdocs()
    assert not any(block.language == "mermaid" for page in all_pages() for block in blocks_of(page))


def _mkdocs() -> str:
    return (ROOT / "mkdocs.yml").read_text()


def test_the_copy_button_takes_the_commands_of_a_console_without_their_prompts() -> None:
    from docs.hooks import on_page_content

    console = '<span class="gp">$ </span>taskq<span> </span>why &lt;ID&gt; \\\n  -x\nok\n'
    page = on_page_content(f'<div class="highlight"><pre><code>{console}</code></pre></div>')

    assert 'data-copy="taskq why &lt;ID&gt; \\&#10;  -x"' in page
    assert "data-copy" not in on_page_content('<div class="highlight"><pre><code>print()</code></pre></div>')


# -- the README's commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_the_readme_has_one_command_under(heading: str) -> None:
    """`.ci/run` and everyone who tries taskq take it from there."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## )", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    fences = re.findall(r"^```\w*\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)

    assert len(fences) == 1
    assert len(fences[0].splitlines()) == 1
    assert fences[0].startswith("python3 -m venv .venv && ")


def test_ci_finds_the_readmes_second_command() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    script = next(line for line in run.splitlines() if line.startswith("command="))
    found = subprocess.run(
        ["bash", "-c", f'{script}; echo "$command"'], cwd=ROOT, text=True, capture_output=True, check=True
    )

    assert found.stdout.strip() == "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/tox"


# -- names of files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`((?:taskq|tests|docs|examples)/[\w/.-]+)`", _prose(page)):
        assert (ROOT / name).exists() or name in _TO_COME, f"{name_of(page)} names {name}"


#: Named as something that is still to be written.
_TO_COME: set[str] = set()


def test_every_test_that_a_promise_rests_on_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "explanation" / "guarantees.md").read_text()))
    there = set(re.findall(r"^def (test_\w+)", "\n".join(p.read_text() for p in (ROOT / "tests").rglob("*.py")), re.M))

    assert named
    assert named - there == set()
