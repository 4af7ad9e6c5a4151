"""ScaNN: lists of 4-bit codes whose error is kept small where it would change the order, ranked anew by floats."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from penstock.registry import registered
from penstock.retrieve.vectors.base import (
    FEW,
    Engine,
    Floats,
    Matrix,
    Metric,
    Rows,
    Scores,
    Searcher,
    Setting,
    State,
    VectorError,
    padded,
)
from penstock.retrieve.vectors.kmeans import PER_LIST, kmeans, members

_ASSETS = "scann_assets.pbtxt"
_PARTITIONER, _TOKENS, _DATASET = "serialized_partitioner.pb", "datapoint_to_token.npy", "dataset.npy"
_SAMPLE = 50_000
"""Vectors from which codes are learned."""
_FORMS = {"float32": "FLOAT32", "bfloat16": "BFLOAT16", "int8": "INT8"}


@registered("vectors")
@dataclass(frozen=True)
class ScannTree(Engine):
    """Anisotropic quantisation after Guo et al., "Accelerating large-scale inference" (2020).

    The lists are those of `kmeans`: the library's own differ each time, and are less even. Every process that opens
    the index holds a copy of its own, since the library maps no files.

    Args:
        leaves: lists.
        fine: what the best are ranked anew by, "float32", "bfloat16" or "int8".
    """

    leaves: int = 1_000
    fine: Literal["float32", "bfloat16", "int8"] = "float32"

    extra = "vectors"

    @classmethod
    def variants(cls, n: int, d: int) -> Sequence[Engine]:
        if n < FEW:
            return []
        return [cls(min(2 * isqrt(n), 4_000)), cls(min(2 * isqrt(n), 4_000), "int8"), cls(isqrt(n))]

    @classmethod
    def lacks(cls) -> str:
        return "" if importlib.util.find_spec("scann") else "scann"

    def room(self, n: int, d: int) -> int:
        # All vectors as floats: here, on the way to the library, and in it.
        return 3 * 4 * n * d

    def fit(self, vectors: Matrix, *, seed: int, threads: int) -> State:
        library = _library()
        count = min(self.leaves, len(vectors))
        centres = kmeans(vectors, count, seed=seed)
        with TemporaryDirectory() as name:
            folder = Path(name)
            (folder / _PARTITIONER).write_bytes(_partitioner(centres))
            (folder / "scann_config.pb").write_bytes(_config(self, vectors, len(centres)))
            np.save(folder / _TOKENS, members(vectors, len(centres), seed=seed))
            np.save(folder / _DATASET, vectors.whole())
            given = {"PARTITIONER": _PARTITIONER, "TOKENIZATION_NPY": _TOKENS, "DATASET_NPY": _DATASET}
            text = "".join(f'assets {{ asset_type: {kind} asset_path: "{file}" }}\n' for kind, file in given.items())
            # What it is not given, the codes, it makes.
            built = library.scann_ops_pybind.scann_pybind.ScannNumpy(name, text)
            with TemporaryDirectory() as out:
                built.serialize(out, True)
                return {path.name: np.fromfile(path, np.uint8) for path in sorted(Path(out).iterdir())}

    def open(self, state: State, metric: Metric) -> Searcher:
        return _Tree(state, metric)


class _Tree(Searcher):
    keeps = True

    def __init__(self, state: State, metric: Metric) -> None:
        # Only arrays and protocol buffers: what it would unpickle is never written.
        with TemporaryDirectory() as folder:
            for name, data in state.items():
                np.asarray(data).tofile(Path(folder) / name)
            text = (Path(folder) / _ASSETS).read_text()
            self._scann = _library().scann_ops_pybind.scann_pybind.ScannNumpy(folder, text)
        self._lists = _array(state["datapoint_to_token.npy"])
        self._vectors = _vectors(state)
        self._far = metric == "l2"
        self.size, self.probes = len(self._lists), int(self._lists.max()) + 1

    def search(self, queries: Floats, k: int, setting: Setting) -> tuple[Rows, Scores]:
        keep, probes = max(k, setting.keep), min(max(setting.probes, 1), self.probes)
        if len(queries) == 1:
            rows, scores = self._scann.search(queries[0], k, keep, probes)
            rows, scores = padded(rows.astype(np.int64)[None], scores[None], k)
        else:
            rows, scores = self._scann.search_batched(queries, k, keep, probes, False, 0)
            rows, scores = padded(rows.astype(np.int64), scores, k)
            rows[~np.isfinite(scores)] = -1
        if self._far:
            np.negative(scores, out=scores)
        if rows.size and rows[:, -1].min() < 0:
            scores[rows < 0] = -np.inf
        return rows, scores

    def take(self, rows: NDArray[np.int64]) -> Floats:
        found: Floats = self._vectors(rows)
        return found

    def lists(self) -> tuple[Floats, NDArray[np.int64]]:
        # Its own centres lie in a form of its own: the means of the lists are next to them.
        centres = np.zeros((self.probes, self._vectors(np.zeros(1, np.int64)).shape[1]), np.float32)
        order = np.argsort(self._lists, kind="stable")
        start = np.searchsorted(self._lists[order], np.arange(self.probes + 1))
        for number in range(self.probes):
            members = order[start[number] : start[number + 1]][:PER_LIST]
            if len(members):
                centres[number] = self._vectors(members).mean(axis=0)
        return centres, self._lists.astype(np.int64)


def _library() -> Any:
    try:
        library = importlib.import_module("scann")
    except ImportError:
        raise VectorError(
            "an index that ScaNN built is searched by ScaNN", got="no scann here",
            remedy="pip install 'penstock[vectors]'",
        ) from None  # fmt: skip
    return library


def _partitioner(centres: Floats) -> bytes:
    """Centres as the library keeps them: a tree of one level."""
    out = importlib.import_module("scann.partitioning.partitioner_pb2").SerializedPartitioner(n_tokens=len(centres))
    tree = out.kmeans.kmeans_tree
    tree.learned_spilling_type = 0
    tree.root.leaf_id, tree.root.learned_spilling_threshold = -1, np.nan
    for number, centre in enumerate(centres):
        tree.root.centers.add().dimension.extend(centre.tolist())
        tree.root.children.add(leaf_id=number, learned_spilling_threshold=np.nan)
    return bytes(out.SerializeToString())


def _config(engine: ScannTree, vectors: Matrix, leaves: int) -> bytes:
    """What the library is to do, in its own terms."""
    library = _library()
    text = importlib.import_module("google.protobuf.text_format")
    measure = "squared_l2" if vectors.metric == "l2" else "dot_product"
    builder = (
        library.scann_ops_pybind.builder(np.zeros((1, vectors.d), np.float32), 10, measure)
        .tree(leaves, 1, quantize_centroids=True)
        .score_ah(
            2 if vectors.d % 2 == 0 else 1, training_sample_size=_SAMPLE,
            anisotropic_quantization_threshold=float("nan") if vectors.metric == "l2" else 0.2,
        )
        .reorder(100, quantize=getattr(library.ReorderType, _FORMS[engine.fine]))
    )  # fmt: skip
    config = importlib.import_module("scann.proto.scann_pb2").ScannConfig()
    text.Parse(builder.create_config(), config)
    return bytes(config.SerializeToString())


def _array(data: NDArray[np.uint8]) -> NDArray[Any]:
    """The array of an .npy file that is given as bytes, without copying it."""
    data = np.asarray(data)
    head = io.BytesIO(data[:4_096].tobytes())
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(head)
    return np.frombuffer(data, dtype, int(np.prod(shape)), head.tell()).reshape(shape)


def _vectors(state: State) -> Any:
    """How the vectors at some rows are had."""
    if "dataset.npy" in state:
        whole = _array(state["dataset.npy"])
        return lambda rows: np.asarray(whole[rows], np.float32)
    if "int8_dataset.npy" in state:
        codes, times = _array(state["int8_dataset.npy"]), _array(state["int8_multipliers.npy"])
        return lambda rows: np.asarray(codes[rows] / times, np.float32)
    half = _array(state["bfloat16_dataset.npy"])
    return lambda rows: (half[rows].astype(np.uint16).astype(np.uint32) << 16).view(np.float32)
