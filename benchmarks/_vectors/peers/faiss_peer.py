"""faiss, by its factory: 4-bit codes ranked anew by int8, int8 codes, and floats, in lists."""

import faiss
import numpy as np
from common import K, Peer, arguments


class Faiss(Peer):
    """Inner products of normalised vectors."""

    forms = ("PQx4fsr", "PQx4fs", "SQ8", "Flat")
    keeps = (10, 20, 40, 60, 80, 120, 160, 240, 320, 640)

    def build(self, form):
        n, d = self.vectors.shape
        lists = 4_096 if n > 4_000_000 else 2_048 if n > 500_000 else 2 * int(n**0.5)
        codes = f"PQ{d // 2}{form[2:]},Refine(SQ8)" if form.startswith("PQ") else form
        faiss.omp_set_num_threads(2)
        index = faiss.index_factory(d, f"IVF{lists},{codes}", faiss.METRIC_INNER_PRODUCT)
        faiss.extract_index_ivf(index).cp.max_points_per_centroid = 64
        draw = np.sort(np.random.default_rng(0).choice(n, min(n, 64 * lists), replace=False))
        index.train(np.asarray(self.vectors[draw]))
        for first in range(0, n, 1 << 17):
            index.add(np.asarray(self.vectors[first : first + (1 << 17)]))
        return index

    def save(self, index, path):
        faiss.write_index(index, str(path))

    def load(self, path, form):
        return faiss.read_index(str(path))

    def probes(self, index):
        return faiss.extract_index_ivf(index).nlist

    def choices(self, index):
        return self.keeps if hasattr(index, "k_factor") else (0,)

    def use(self, index, probes, keep):
        faiss.omp_set_num_threads(1)
        faiss.extract_index_ivf(index).nprobe = probes
        if hasattr(index, "k_factor"):
            index.k_factor = keep / K

    def many(self, index, queries):
        return index.search(queries, K)[1]

    def one(self, index, query):
        return index.search(query[None], K)[1]


Faiss(*arguments()).run()
