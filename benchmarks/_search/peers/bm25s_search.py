"""BM25 by bm25s, with the same parameters and Porter's stems: reads documents and queries, writes ranked lists.

python bm25s_search.py IN.json OUT.json, in an environment that has bm25s and PyStemmer.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

import bm25s
import numpy as np
import Stemmer

given = json.loads(Path(sys.argv[1]).read_text())
stemmer = Stemmer.Stemmer("porter")


def read(texts):
    return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)


began = perf_counter()
engine = bm25s.BM25(method="lucene", k1=given["k1"], b=given["b"])
engine.index(read(given["documents"]), show_progress=False)
build = perf_counter() - began
found, seconds = [], []
for query in given["queries"]:
    began = perf_counter()
    # A query of words that no document has cannot be asked.
    words = read([query])
    try:
        places, _ = engine.retrieve(words, k=min(given["k"], len(given["documents"])), n_threads=1, show_progress=False)
        found.append(places[0].tolist())
    except ValueError:
        found.append([])
    seconds.append(perf_counter() - began)
ms = np.array(seconds) * 1e3
told = {"build_s": build, "p50_ms": float(np.median(ms)), "p99_ms": float(np.quantile(ms, 0.99))}
Path(sys.argv[2]).write_text(json.dumps({"found": found, **told}))
