"""A release: everything a decision needs, in one immutable folder named by its content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from penstock.errors import ReleaseError
from penstock.events.archive import sync_folder
from penstock.learn import Model, Posterior, Recipe, Summary, VerdictModel, VerdictRecipe, load
from penstock.learn.calibrate import Calibration, load_calibration
from penstock.retrieve import Index, Source
from penstock.types import Array

FORMAT = 1


class Saves(Protocol):
    """A model, as far as writing it goes."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes its files and gives what loading needs, as JSON values."""


@dataclass(frozen=True)
class Bundle:
    """What every loaded release has; `warmup` are requests to answer before it takes traffic."""

    id: str
    recipe: Recipe | VerdictRecipe
    warmup: Sequence[Mapping[str, Any]]
    manifest: Mapping[str, Any]

    @property
    def decision(self) -> str:
        return self.recipe.name


@dataclass(frozen=True)
class Release(Bundle):
    """A release of a decision that answers lists.

    `defaults` (n,) are the items shown when nothing else can be; `learned` is what is believed of rewards, by
    `LinearReward.key`.
    `propensity` says for a score of the model how likely the goal is, where there were labels enough to fit it.
    """

    recipe: Recipe
    model: Model
    indexes: Mapping[str, Index]
    defaults: Array
    propensity: Calibration | None = None
    learned: Mapping[str, Posterior] = field(default_factory=dict)

    @cached_property
    def sources(self) -> Mapping[str, tuple[Source, Index]]:
        """The recipe's sources by label, each with its index."""
        return {source.label: (source, self.indexes.get(source.label, {})) for source in self.recipe.sources}


@dataclass(frozen=True)
class VerdictRelease(Bundle):
    """A release of a decision that answers what to do with one event."""

    recipe: VerdictRecipe
    model: VerdictModel


def write(
    folder: Path,
    *,
    recipe: Recipe | VerdictRecipe,
    model: Saves,
    report: Mapping[str, Any],
    report_html: str,
    baseline: Mapping[str, Any],
    warmup: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any],
    indexes: Mapping[str, Index] | None = None,
    defaults: Array | None = None,
    propensity: Calibration | None = None,
    learned: Mapping[str, Posterior] | None = None,
) -> str:
    """Writes a release under `folder` and gives its id: the first 16 digits of the SHA-256 of its files.

    Args:
        folder: where releases are kept.
        report, report_html: the evaluation, for machines and for people.
        baseline: what features looked like in training, for drift.
        warmup: requests to answer before the release takes traffic; a user's code stands for its id.
        data: the snapshot it was trained on: the log's id and offsets.
        indexes: of the sources of candidates, by label.
        defaults: (n,) codes of the items shown when nothing else can be.
        propensity: from the model's scores to chances of the goal.
        learned: what is believed of rewards, by the key of the model.
    """
    part = folder / f".part-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    saved = model.save(part)
    for label, index in (indexes or {}).items():
        _save(part / "index" / label, index)
    for key, posterior in (learned or {}).items():
        _save(part / "rewards" / key, {**posterior.summary.arrays(), "penalty": np.array([posterior.penalty])})
    if defaults is not None:
        np.save(part / "defaults.npy", defaults, allow_pickle=False)
    for name, value in {
        "recipe": recipe.spec(),
        "report": report,
        "baseline": baseline,
        "warmup": list(warmup),
    }.items():
        (part / f"{name}.json").write_text(json.dumps(value, indent=1))
    if propensity is not None:
        (part / "propensity.json").write_text(json.dumps(propensity.save()))
    (part / "report.html").write_text(report_html)
    files = {str(p.relative_to(part)): _digest(p) for p in sorted(part.rglob("*")) if p.is_file()}
    manifest = {
        "format": FORMAT,
        "decision": recipe.name,
        "model": saved,
        "views": {view.name: view.version.hex() for view in recipe.views},
        "features": list(recipe.assembler.names),
        "data": dict(data),
        "files": files,
    }
    text = json.dumps(manifest, indent=1, sort_keys=True)
    (part / "manifest.json").write_text(text)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    _sync(part)
    target = folder / name
    if target.exists():
        shutil.rmtree(part)
    else:
        part.rename(target)
        sync_folder(folder)
    return name


def _save(folder: Path, arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def read(folder: Path, name: str) -> Bundle:
    """Loads a release after checking every file against its manifest. Arrays are memory-mapped."""
    path = folder / name
    try:
        text = (path / "manifest.json").read_text()
    except UnicodeDecodeError:
        raise _changed(name, ["manifest.json"]) from None
    except OSError:
        raise ReleaseError(
            "a release is a folder that penstock train wrote",
            got=f"{name!r}",
            remedy="penstock release list shows those there are",
        ) from None
    if hashlib.sha256(text.encode()).hexdigest()[:16] != name:
        raise _changed(name, ["manifest.json"])
    manifest = json.loads(text)
    wrong = [f for f, digest in manifest["files"].items() if not (path / f).is_file() or _digest(path / f) != digest]
    if wrong:
        raise _changed(name, wrong)
    recipe = recipe_of(folder, name)
    found = {view.name: view.version.hex() for view in recipe.views}
    if found != manifest["views"] or list(recipe.assembler.names) != manifest["features"]:
        raise ReleaseError(
            "the views of a release mean today what they meant when it was trained",
            got="other fingerprints or columns, from another version of penstock or Polars",
            remedy="train again with this version",
        )
    warmup = json.loads((path / "warmup.json").read_text())
    if isinstance(recipe, VerdictRecipe):
        return VerdictRelease(name, recipe, warmup, manifest, VerdictModel.load(path, manifest["model"]))
    indexes: dict[str, dict[str, Array]] = {source.label: {} for source in recipe.sources}
    rewards: dict[str, dict[str, Array]] = {}
    for file in manifest["files"]:
        parts = Path(file).parts
        if parts[0] == "index":
            indexes[parts[1]][Path(file).stem] = np.load(path / file, mmap_mode="r", allow_pickle=False)
        elif parts[0] == "rewards":
            rewards.setdefault(parts[1], {})[Path(file).stem] = np.load(path / file, allow_pickle=False)
    # Plain views of the maps: fancy indexing of np.memmap costs ten times as much.
    plain = {label: {name: np.asarray(array) for name, array in index.items()} for label, index in indexes.items()}
    defaults = np.load(path / "defaults.npy", allow_pickle=False)
    model = load(path, manifest["model"], recipe.assembler.lasting)
    chances = path / "propensity.json"
    propensity = load_calibration(json.loads(chances.read_text())) if chances.name in manifest["files"] else None
    learned = {key: Posterior(Summary.from_arrays(held), float(held["penalty"][0])) for key, held in rewards.items()}
    return Release(name, recipe, warmup, manifest, model, plain, defaults, propensity, learned)


def _changed(name: str, files: Sequence[str]) -> ReleaseError:
    return ReleaseError(
        "a release never changes after it was written",
        got=f"{name} differs in {', '.join(files)}",
        remedy="restore the folder, or train again",
    )


def recipe_of(folder: Path, name: str) -> Recipe | VerdictRecipe:
    """What a release was trained to do, without loading the rest of it."""
    try:
        spec = json.loads((folder / name / "recipe.json").read_text())
        return VerdictRecipe.from_spec(spec) if "outcomes" in spec else Recipe.from_spec(spec)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ReleaseError(
            "a release says what it was trained to do", got=f"{name}/recipe.json: {error}",
            remedy="restore the folder, or train again",
        ) from None  # fmt: skip


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)
