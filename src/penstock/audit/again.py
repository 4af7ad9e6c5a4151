"""The slates of logged decisions, had again from the log: what a rule that explores was given."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from penstock.audit.served import Recomputed, recomputed
from penstock.engines import NaiveEngine
from penstock.errors import ReleaseError
from penstock.learn import Candidates, SourceOrder
from penstock.releases import Bundle, Release
from penstock.retrieve import Popular
from penstock.serve.decisions import Decided
from penstock.serve.definition import Decision, able
from penstock.serve.rerank import Facts, Slate
from penstock.types import Log


class Again:
    """Makes slates again as they were when they were drawn from, for the chances of what was or might have been shown.

    ``rule.chances(again.of(one), one.shown)`` gives back what the decision's own rule logged, and as the policy of
    `penstock.serve.counterfactual.weighed` what another rule, or the same otherwise set, would have said.

    Args:
        log: the event log that the decisions were served from.
        decision: as the app defines it; its rules but those that explore are applied again.
        releases: by id, those that the decisions name.
    """

    def __init__(self, log: Log, decision: Decision, releases: Mapping[str, Bundle]) -> None:
        self._decision = decision
        self._releases = {name: one for name, one in releases.items() if isinstance(one, Release)}
        views = {view.version: view for one in self._releases.values() for view in one.recipe.views}
        self._strings = log.strings
        self._naive = NaiveEngine(log.read(0, log.end), list(views.values()), log.strings)

    def of(self, one: Decided) -> Slate:
        """What a logged decision's candidates were after all rules that do not explore.

        Raises:
            ReleaseError: it read no features, its release is not at hand, or that ranks by live counts.
        """
        release = self._releases.get(str(one.release))
        if release is None or not one.digests:
            raise ReleaseError(
                "a slate is had again from features and the release that ranked them",
                got=f"decision {one.id} of tier {one.tier}, release {one.release}",
                remedy="pass over answers without digests, and read the releases that decisions name",
            )
        known = recomputed(one, release, self._naive, self._strings)
        found = Candidates(known.items, known.scores, _places(known, release))
        scores = release.model.score(known.rows.astype(np.float32), found)
        order = np.argsort(-scores, kind="stable")
        facts = Facts(known.rows, release.recipe.assembler.places, release.sources, known.query, release.learned)
        slate = Slate(known.items, order, known.attributes, np.ones(len(order)), scores, facts)
        for rule in able(self._decision, release.recipe).rules:
            if not rule.explores:
                slate = rule.apply(slate, len(one.shown), self._strings, random.Random(one.id))
        return slate


def _places(known: Recomputed, release: Release) -> NDArray[np.float64]:
    """The candidates' places (n, sources) in the lists of all sources but those that are counted live."""
    out = np.full((len(known.items), len(release.sources)), np.nan)
    for i, (source, index) in enumerate(release.sources.values()):
        if not isinstance(source, Popular):
            place = {item: at for at, item in enumerate(source.find(known.query, index).items.tolist())}
            out[:, i] = [place.get(item, np.nan) for item in known.items.tolist()]
        elif isinstance(release.model, SourceOrder) and release.model.place == i:
            raise ReleaseError(
                "a slate is had again where its order follows from the log and the release",
                got=f"the live counts of {source.label}", remedy="judge decisions of releases that rank otherwise",
            )  # fmt: skip
    return out
