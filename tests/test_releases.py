"""A release is what it was when it was written, and the champion is the last whole line of its history."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import helpers
import penstock as ps
from penstock.errors import NotFoundError, PenstockError, ReleaseError
from penstock.learn import Candidates, SourceOrder
from penstock.releases import Registry, Release, read, recipe_of, write


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ps.App, str]]:
    folder = tmp_path_factory.mktemp("releases")
    with helpers.trained(folder) as app:
        yield app, app.registry.ids()[0]


@pytest.fixture
def folder(trained: tuple[ps.App, str], tmp_path: Path) -> Path:
    """A copy of the releases, free to be damaged."""
    shutil.copytree(trained[0].home / "releases", tmp_path / "releases")
    return tmp_path / "releases"


def again(release: Release, folder: Path, **changed: Any) -> str:
    """Writes the content of a release once more, with something changed."""
    path = folder / release.id
    parts: dict[str, Any] = {
        "recipe": release.recipe,
        "model": release.model,
        "indexes": release.indexes,
        "defaults": release.defaults,
        "report": json.loads((path / "report.json").read_text()),
        "report_html": (path / "report.html").read_text(),
        "baseline": json.loads((path / "baseline.json").read_text()),
        "warmup": release.warmup,
        "data": release.manifest["data"],
    }
    return write(folder, **{**parts, **changed})


# The folder


def test_equal_content_has_one_name_and_any_change_another(folder: Path, trained: tuple[ps.App, str]) -> None:
    release = read(folder, trained[1])
    before = sorted(folder.iterdir())
    assert again(release, folder) == release.id
    assert sorted(folder.iterdir()) == before
    names = {release.id}
    for changed in (
        {"model": SourceOrder(1)},
        {"defaults": release.defaults[:-1]},
        {"warmup": release.warmup[:-1]},
        {"data": {**release.manifest["data"], "until": 1}},
        {"report": {}},
    ):
        names.add(again(release, folder, **changed))
    assert len(names) == 6
    assert names == set(Registry(folder).ids())


def test_what_is_read_is_what_was_written(folder: Path, trained: tuple[ps.App, str]) -> None:
    """Recipe, indexes to the byte, defaults, and a model that gives the same scores."""
    release = read(folder, trained[1])
    other = read(folder, again(release, folder, model=SourceOrder(1), report={"changed": True}))
    assert other.recipe.spec() == release.recipe.spec() == recipe_of(folder, other.id).spec()
    assert [v.version for v in other.recipe.views] == [v.version for v in release.recipe.views]
    for label, index in release.indexes.items():
        assert {name: array.tobytes() for name, array in index.items()} == {
            name: array.tobytes() for name, array in other.indexes[label].items()
        }
    assert other.defaults.tolist() == release.defaults.tolist()
    assert list(other.warmup) == list(release.warmup)
    n = len(release.recipe.assembler.names)
    rows = np.random.default_rng(3).random((40, n)).astype(np.float32)
    place = np.full((40, len(release.recipe.sources)), np.nan)
    place[:, 1] = np.arange(40)[::-1]
    found = Candidates(np.arange(1, 41, dtype=np.uint32), np.zeros((40, 0)), place)
    assert release.model.score(rows, found).tobytes() == read(folder, release.id).model.score(rows, found).tobytes()
    assert np.argsort(-other.model.score(rows, found)).tolist() == list(range(40))[::-1]


FILES = ("manifest.json", "recipe.json", "defaults.npy", "index/covisits/near.npy", "warmup.json", "report.html")


@pytest.mark.parametrize("damage", ["changed", "truncated", "emptied", "missing"])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_release_is_refused_and_the_file_is_named(
    folder: Path, trained: tuple[ps.App, str], file: str, damage: str
) -> None:
    """One byte is enough; the message says the rule, what differs and the remedy."""
    path = folder / trained[1] / file
    held = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        flipped = bytes([held[0] ^ 1]) + held[1:]
        path.write_bytes({"changed": flipped, "truncated": held[:-1], "emptied": b""}[damage])
    words = f"never changes after it was written; got {trained[1]} differs in {file}; restore"
    if (file, damage) == ("manifest.json", "missing"):
        words = "a folder that penstock train wrote; got.*penstock release list"
    with pytest.raises(ReleaseError, match=words):
        read(folder, trained[1])


def test_a_release_whose_views_mean_something_else_today_is_refused(folder: Path, trained: tuple[ps.App, str]) -> None:
    """As another version of penstock leaves it: whole, under its own name, with other fingerprints or columns."""
    for key, other in (("views", {"Shopper": "00"}), ("features", ["renamed"])):
        path = shutil.copytree(folder / trained[1], folder / f"other-{key}")
        manifest = {**json.loads((path / "manifest.json").read_text()), key: other}
        text = json.dumps(manifest, indent=1, sort_keys=True)
        (path / "manifest.json").write_text(text)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        path.rename(folder / name)
        with pytest.raises(ReleaseError, match=r"mean today what.*other fingerprints or columns.*train again"):
            read(folder, name)


def test_a_folder_left_by_a_crash_is_no_release(folder: Path, trained: tuple[ps.App, str]) -> None:
    (folder / ".part-1").mkdir()
    (folder / ".part-1" / "manifest.json").write_text("{}")
    assert Registry(folder).ids() == [trained[1]]


# The pointer


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Four releases, three of one decision."""
    for name, decision in (("a", "home"), ("b", "home"), ("c", "home"), ("x", "cart")):
        path = tmp_path / name
        path.mkdir()
        (path / "manifest.json").write_text(
            json.dumps({"decision": decision, "views": {"V": (name * 8).encode().hex()}})
        )
    return Registry(tmp_path)


def test_the_champion_is_the_last_promoted_of_each_decision_and_history_is_kept(registry: Registry) -> None:
    assert registry.champions() == {}
    stamps = {registry.stamp()}
    for name in ("a", "x", "b"):
        registry.promote(name)
        stamps.add(registry.stamp())
    assert registry.champions() == {"home": "b", "cart": "x"}
    assert [line["release"] for line in registry.history("home")] == ["a", "b"]
    # Whoever looks at the stamp notices each move.
    assert len(stamps) == 4


def test_rolling_back_goes_back_one_champion_at_a_time(registry: Registry) -> None:
    for name in ("a", "b", "c"):
        registry.promote(name)
    assert registry.rollback("home")["release"] == "b"
    assert registry.rollback("home")["release"] == "a"
    with pytest.raises(ReleaseError, match="an earlier champion; got home has had 1; promote a release by its id"):
        registry.rollback("home")
    assert registry.champion("home") == "a"
    registry.promote("c")
    registry.promote("c")
    # Promoted twice, it is still one champion.
    assert registry.rollback("home")["release"] == "a"
    assert [line["action"] for line in registry.history("home")].count("rollback") == 3


def test_a_decision_without_history_and_an_unknown_release_are_named(registry: Registry) -> None:
    with pytest.raises(ReleaseError, match="got cart has had 0"):
        registry.rollback("cart")
    with pytest.raises(NotFoundError, match="by its id; got 'z'; penstock release list"):
        registry.promote("z")
    (registry.folder / "c" / "manifest.json").write_text("torn {")
    with pytest.raises(PenstockError, match=r"has a manifest; got c/manifest.json.*restore the folder"):
        registry.promote("c")


@pytest.mark.parametrize(
    "torn", ['{"decision": "home", "rel', '{"decision": "home", "release": "c", "action": "promote"}']
)
def test_a_line_that_a_crash_tore_does_not_count_and_the_next_one_does(registry: Registry, torn: str) -> None:
    """A line counts once its newline is there; appending after a torn one leaves whole lines only."""
    registry.promote("a")
    with (registry.folder / "promotions.jsonl").open("a") as file:
        file.write(torn)
    assert registry.champions() == {"home": "a"}
    registry.promote("b")
    assert registry.champions() == {"home": "b"}
    assert [line["release"] for line in registry.history()] == ["a", "b"]


def test_views_of_every_champion_past_or_present_are_kept(registry: Registry) -> None:
    """A rollback may ask for them; those of a release that never was champion are not."""
    for name in ("a", "b"):
        registry.promote(name)
    registry.rollback("home")
    assert registry.kept_views() == {b"a" * 8, b"b" * 8}
    shutil.rmtree(registry.folder / "b")
    assert registry.kept_views() == {b"a" * 8}


def test_a_rollback_to_a_release_that_is_gone_is_refused(registry: Registry) -> None:
    """The pointer stays where it was: nothing would answer from a folder that is not there."""
    for name in ("a", "b"):
        registry.promote(name)
    shutil.rmtree(registry.folder / "a")
    with pytest.raises(ReleaseError, match="still there; got a, whose folder is gone; restore it"):
        registry.rollback("home")
    assert registry.champion("home") == "b"


def test_a_broken_line_of_history_and_a_damaged_manifest_are_named(registry: Registry, folder: Path) -> None:
    """A whole line that is no JSON is an error with the file's name; a damaged release is listed as one."""
    registry.promote("a")
    with (registry.folder / "promotions.jsonl").open("a") as file:
        file.write("none\n")
    with pytest.raises(ReleaseError, match=r"is JSON; got .*promotions.jsonl.*delete the broken line"):
        registry.champions()
    releases = Registry(folder)
    (good,) = releases.listing()
    assert good["champion"] is True
    (folder / good["id"] / "manifest.json").write_bytes(b"\xff")
    assert releases.listing() == [{**good, "decision": None, "model": "damaged", "until": None}]
    with pytest.raises(ReleaseError, match=r"differs in manifest\.json"):
        read(folder, good["id"])
