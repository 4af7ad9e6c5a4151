"""ScaNN: a tree of lists, 4-bit anisotropic codes, floats to rank anew."""

import numpy as np
import scann
from common import K, Peer, arguments


class Scann(Peer):
    """Inner products of normalised vectors."""

    forms = ("1", "2")
    keeps = (20, 30, 40, 60, 80, 120, 160, 240, 320, 640)

    def build(self, form):
        leaves = int(form) * int(len(self.vectors) ** 0.5)
        builder = scann.scann_ops_pybind.builder(np.asarray(self.vectors), K, "dot_product")
        builder = builder.tree(leaves, 100, training_sample_size=max(100_000, 50 * leaves))
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
        return builder.set_n_training_threads(2).build()

    def save(self, index, path):
        path.mkdir(exist_ok=True)
        index.serialize(str(path))

    def load(self, path, form):
        return scann.scann_ops_pybind.load_searcher(str(path))

    def probes(self, index):
        return 2 * int(len(self.vectors) ** 0.5)

    def use(self, index, probes, keep):
        self._probes, self._keep = probes, keep

    def many(self, index, queries):
        return index.search_batched(queries, K, self._keep, self._probes)[0]

    def one(self, index, query):
        return index.search(query, K, self._keep, self._probes)[0]


Scann(*arguments()).run()
