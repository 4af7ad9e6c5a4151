"""Every public name, command, option, address and metric stands in the docs; what they name exists; examples run."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import penstock
from penstock.cli import cli
from penstock.events import Mapping
from penstock.events.mapping import Csv, Filter, Source, Time
from penstock.registry import get, names
from penstock.serve.metrics import Metrics
from penstock.serve.openapi import document

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]}
ALL = "\n".join(PAGES.values())


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, sub in getattr(command, "commands", {}).items():
        yield f"{name} {word}", sub
        yield from commands(sub, f"{name} {word}")


COMMANDS = dict(commands(typer.main.get_command(cli), "penstock"))


def options(command: str) -> set[str]:
    found = (word for option in COMMANDS[command].params for word in (*option.opts, *option.secondary_opts))
    return {word for word in found if word.startswith("-")}


def section(command: str) -> str:
    found = re.search(rf"^## {command}$(.*?)(?=^## |\Z)", PAGES["cli.md"], re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section '## {command}'"
    return found[1]


def fenced(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{page}-{at}")
        for page, text in PAGES.items()
        for at, block in enumerate(re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    ]


def test_public_names_are_documented() -> None:
    """Every public name stands in some page, and every ps.name in a page exists."""
    named = set(re.findall(r"\bps\.(\w+)", ALL))
    assert set(penstock.__all__) - named == set(), "stand in no page"
    assert named - set(penstock.__all__) == set(), "are named and do not exist"


def test_commands_are_documented() -> None:
    """Each command has a section of docs/cli.md, in the order of the command line."""
    assert len(COMMANDS) > 5
    assert re.findall(r"^## (penstock .*)$", PAGES["cli.md"], re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_documented(command: str) -> None:
    """A command's section lists exactly its options."""
    rows = re.findall(r"^\| (`-.*?) \|", section(command), re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(rows))) == options(command)


def test_arguments_are_documented() -> None:
    """A command's section names its arguments."""
    for command, given in COMMANDS.items():
        for argument in given.params:
            if not argument.opts[0].startswith("-"):
                assert f"`{argument.name.upper()}`" in section(command), f"{argument.name} of {command}"


def test_commands_in_the_docs_exist() -> None:
    """Every penstock command in the pages exists, with the options that it is shown with."""
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", ALL, re.MULTILINE | re.DOTALL) + re.findall(r"`([^`\n]+)`", ALL))
    used = re.findall(r"^(?:\.venv/bin/)?penstock (\w+)(.*)$", shell, re.MULTILINE)
    words = {command.split()[1] for command in COMMANDS}
    assert {word for word, _ in used} - {"COMMAND"} == words
    for word, rest in used:
        known = {option for command in COMMANDS if command.split()[1] == word for option in options(command)}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known | {"--help"}, f"penstock {word}{rest}"


def test_addresses_are_documented() -> None:
    """docs/serving.md lists exactly the server's addresses."""
    described = document({"streams": {}, "decisions": [], "verdicts": [], "views": []})
    known = {f"{verb.upper()} {path}" for path, verbs in described["paths"].items() for verb in verbs}
    assert set(re.findall(r"^\| `((?:GET|POST) \S+)`", PAGES["serving.md"], re.MULTILINE)) == known


@pytest.mark.parametrize(
    ("kind", "page"), [("aggregate", "features.md"), ("source", "decisions.md"), ("rule", "decisions.md")]
)
def test_registered_names_are_documented(kind: str, page: str) -> None:
    """Every registered aggregate, source and rule has a row on its page, under the name of a written definition."""
    rows = re.findall(r"^\| `ps\.[\w.]+\(.*?\)` \(`(\w+)`\) \|", PAGES[page], re.MULTILINE)
    for name in penstock.__all__:
        getattr(penstock, name)
    known = {name for name in names(kind) if get(kind, name).__module__.startswith("penstock.")}
    assert known
    assert known <= set(rows)


def test_every_key_of_a_mapping_is_documented() -> None:
    """Every key that a mapping file may have stands in the table of keys."""
    parts = {"csv": Csv, "time": Time, "fields.NAME": Source, "filter": Filter}
    known = {f"{part}.{key}" for part, cls in parts.items() for key in cls.__struct_fields__}
    known |= {key for key in Mapping.__struct_fields__ if key not in ("csv", "time", "fields", "filter")}
    assert known <= set(re.findall(r"`([a-zA-Z.]+)`", PAGES["mappings.md"]))


def test_every_page_is_in_the_tables_of_contents() -> None:
    """README.md and docs/index.md link every page of docs."""
    pages = {name for name in PAGES if name not in ("README.md", "index.md")}
    assert pages <= set(re.findall(r"\]\(docs/(\w+\.md)\)", PAGES["README.md"]))
    assert pages <= set(re.findall(r"\]\((\w+\.md)\)", PAGES["index.md"]))


def test_metrics_are_documented() -> None:
    """The pages name exactly the metrics that a server exposes."""
    exposed = re.findall(r"^# TYPE (penstock_\w+)", Metrics().text().decode(), re.MULTILINE)
    known = {name for name in exposed if not name.endswith("_created")}
    assert known
    assert set(re.findall(r"`(penstock_[a-z_]+)`", ALL)) == known


def test_links_lead_somewhere() -> None:
    """Every relative link of README.md, CHANGELOG.md and docs leads to a file, and to a heading in it."""
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("**/*.md")]:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", path.read_text()):
            page = path.parent / target if target else path
            assert page.exists(), f"{path.name} links to {target}"
            if anchor and page.suffix == ".md":
                headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
                known = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in known, f"{path.name} links to {target}#{anchor}"


@pytest.mark.parametrize("block", fenced("python"))
def test_python_examples_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python example of the pages runs as it stands."""
    (tmp_path / "example.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py", run_name="example")


@pytest.mark.parametrize("block", fenced("toml"))
def test_mapping_examples_are_mappings(block: str) -> None:
    """Every TOML example of the pages is a mapping."""
    assert Mapping.parse(block).fields
