"""A classifier with its calibration, and the events by which the price of a review begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.learn.calibrate import Calibration, load_calibration
from penstock.learn.classify import FittedClassifier, load_classifier


@dataclass(frozen=True)
class VerdictModel:
    """What a release of a verdict decides by.

    Args:
        classifier: gives the chance that an event is bad.
        calibration: makes chances of it that hold.
        reference: (n, 2) float64, chance and amount of some of the events that it was validated on.
        a_day: events there were a day.
    """

    classifier: FittedClassifier
    calibration: Calibration
    reference: NDArray[np.float64]
    a_day: float

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The chance of each row (n, features), (n,)."""
        return np.asarray(self.calibration.of(self.classifier.score(rows)), np.float64)

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes its files and gives what `load` needs, as JSON values."""
        np.save(folder / "reference.npy", self.reference, allow_pickle=False)
        saved = self.classifier.save(folder)
        return {**saved, "calibration": self.calibration.save(), "a_day": self.a_day}

    @classmethod
    def load(cls, folder: Path, saved: dict[str, Any]) -> VerdictModel:
        """The inverse of `save`."""
        reference = np.load(folder / "reference.npy", allow_pickle=False)
        return cls(
            load_classifier(folder, saved), load_calibration(saved["calibration"]), reference, float(saved["a_day"])
        )
