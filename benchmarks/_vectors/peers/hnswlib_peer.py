"""hnswlib, M 16: it has no other form."""

import hnswlib
import numpy as np
from common import K, Peer, arguments


class Hnswlib(Peer):
    """Inner products of normalised vectors."""

    def build(self, form):
        index = hnswlib.Index("ip", self.vectors.shape[1])
        index.init_index(len(self.vectors), ef_construction=200, M=16, random_seed=1)
        for first in range(0, len(self.vectors), 50_000):
            index.add_items(np.asarray(self.vectors[first : first + 50_000]), num_threads=2)
        return index

    def save(self, index, path):
        index.save_index(str(path))

    def load(self, path, form):
        index = hnswlib.Index("ip", self.vectors.shape[1])
        index.load_index(str(path))
        return index

    def probes(self, index):
        return 8_192

    def use(self, index, probes, keep):
        index.set_num_threads(1)
        index.set_ef(max(probes, K))

    def many(self, index, queries):
        return index.knn_query(queries, K)[0]

    def one(self, index, query):
        return index.knn_query(query, K)[0]


Hnswlib(*arguments()).run()
