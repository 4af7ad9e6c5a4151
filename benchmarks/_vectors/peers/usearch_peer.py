"""usearch with half-precision floats, the fastest of its forms here."""

import numpy as np
from common import K, Peer, arguments
from usearch.index import Index


class Usearch(Peer):
    """Inner products of normalised vectors."""

    forms = ("f16",)

    def _new(self, form):
        return Index(ndim=self.vectors.shape[1], metric="ip", dtype=form, connectivity=16, expansion_add=128)

    def build(self, form):
        index = self._new(form)
        for first in range(0, len(self.vectors), 50_000):
            part = np.asarray(self.vectors[first : first + 50_000])
            index.add(np.arange(first, first + len(part)), part, threads=2)
        return index

    def save(self, index, path):
        index.save(str(path))

    def load(self, path, form):
        index = self._new(form)
        index.load(str(path))
        return index

    def probes(self, index):
        return 8_192

    def use(self, index, probes, keep):
        index.expansion_search = max(probes, K)

    def many(self, index, queries):
        return index.search(queries, K, threads=1).keys

    def one(self, index, query):
        return index.search(query, K, threads=1).keys


Usearch(*arguments()).run()
