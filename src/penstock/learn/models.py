"""What can score candidates: boosted trees, the order of one source, or several orders fused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.errors import ReleaseError
from penstock.learn.losses.ranking import LambdaPairwise, Lists, objective
from penstock.learn.recipe import Candidates, LambdaRank
from penstock.learn.scorer import Scorer

_TOP = 20
"""Places of a list that count in training."""

if TYPE_CHECKING:  # it takes two seconds to import, which commands that fit and score nothing need not wait for
    import lightgbm


FUSED = 60
"""How little the first places count beyond those after them, in reciprocal rank fusion."""


class Model(Protocol):
    """Scores candidates; the same numbers in, the same numbers out, in training and serving."""

    def score(
        self, rows: NDArray[np.float32], candidates: Candidates, editions: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """A score a candidate: rows (n, features) float32 → (n,) float64, higher is better.

        Args:
            editions: (n, views) of what the candidates' lasting columns were made of, see `Matrix`.
        """

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes its files and gives what `load` needs, as JSON values."""


class SourceOrder:
    """The order of one candidate source; what it did not find comes after, in the order it was found.

    Args:
        place: the position of the source among the recipe's.
    """

    def __init__(self, place: int) -> None:
        self.place = place

    def score(
        self, rows: NDArray[np.float32], candidates: Candidates, editions: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        place = candidates.place[:, self.place]
        late = len(place) + np.arange(len(place), dtype=np.float64)
        return 1.0 / (1.0 + np.where(np.isnan(place), late, place))

    def save(self, folder: Path) -> dict[str, Any]:
        return {"model": "source", "place": self.place}


class Fusion:
    """Reciprocal rank fusion of candidate sources: the sum of 1 / (60 + place), from 1, over those that found it.

    After Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods" (2009), with their constant.

    Args:
        places: the positions of the sources among the recipe's.
    """

    def __init__(self, places: Sequence[int]) -> None:
        self.places = tuple(places)

    def score(
        self, rows: NDArray[np.float32], candidates: Candidates, editions: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        place = candidates.place[:, list(self.places)]
        return np.asarray(np.nansum(1.0 / (FUSED + 1.0 + place), axis=1))

    def save(self, folder: Path) -> dict[str, Any]:
        return {"model": "fusion", "places": list(self.places)}


class Trees:
    """A LightGBM booster, one thread a request. `Scorer` gives the same scores sooner where it covers the model.

    Args:
        lasting: see `Scorer`.
    """

    def __init__(self, booster: lightgbm.Booster, lasting: Sequence[int] = ()) -> None:
        self.booster = booster
        self._scorer = Scorer.of(booster, lasting)

    def score(
        self, rows: NDArray[np.float32], candidates: Candidates, editions: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        if not len(rows):
            return np.zeros(0)
        if self._scorer is not None and self._scorer.takes(rows):
            return self._scorer.score(rows, editions)
        return np.asarray(self.booster.predict(rows, num_threads=1))

    def save(self, folder: Path) -> dict[str, Any]:
        (folder / "model.txt").write_text(self.booster.model_to_string())
        return {"model": "trees", "file": "model.txt"}

    @property
    def importance(self) -> NDArray[np.float64]:
        """The total gain of each feature's splits, (features,) float64."""
        return np.asarray(self.booster.feature_importance("gain"), np.float64)


def prepare() -> None:
    """Loads now what the first model needs, in a process that must not wait for it later."""
    import lightgbm  # noqa: F401


def load(folder: Path, saved: dict[str, Any], lasting: Sequence[int] = ()) -> Model:
    """The inverse of `save`.

    Args:
        lasting: columns that hardly change between requests, see `Scorer`.
    """
    if saved["model"] == "source":
        return SourceOrder(int(saved["place"]))
    if saved["model"] == "fusion":
        return Fusion(saved["places"])
    if saved["model"] == "trees":
        import lightgbm

        return Trees(lightgbm.Booster(model_str=(folder / saved["file"]).read_text()), lasting)
    raise ReleaseError(
        "a release's model is one that this penstock can load", got=repr(saved["model"]), remedy="upgrade penstock"
    )


def fit_trees(
    rank: LambdaRank,
    rows: NDArray[np.float32],
    gain: NDArray[np.float64],
    groups: NDArray[np.int64],
    names: Sequence[str],
    weight: NDArray[np.float64] | None = None,
) -> Trees:
    """Fits the ranker on rows (n, features), what came of them (n,), and the sizes of the requests' groups.

    A single goal without weights is LightGBM's LambdaRank, which gives every list the same say. Gains that differ and
    weights are to be worth the same in every list, and LightGBM would weigh rows, not pairs: there the loss is
    `LambdaPairwise`, in its form that is unbiased.

    Args:
        weight: what each row's gain counts, (n,): inverse propensities.
    """
    import lightgbm

    single = weight is None and bool(np.isin(gain, (0.0, 1.0)).all())
    data = lightgbm.Dataset(
        rows, (gain > 0).astype(np.int8), group=groups, feature_name=[_plain(n) for n in names]
    )  # fmt: skip
    loss = LambdaPairwise(top=_TOP, others="all")
    parameters: dict[str, Any] = {
        "objective": "lambdarank" if single else objective(loss, Lists(gain, groups, weight)),
        "num_leaves": rank.leaves,
        "learning_rate": rank.learning_rate,
        "min_data_in_leaf": rank.min_leaf,
        "lambdarank_truncation_level": _TOP,
        # Two threads gain a second here, and lose half a minute where another process wants a core.
        "num_threads": 1,
        "seed": rank.seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    return Trees(lightgbm.train(parameters, data, rank.trees))


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "_" for c in name)
