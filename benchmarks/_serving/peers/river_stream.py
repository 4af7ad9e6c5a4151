"""Count and sum over the last hour and the last day a key, of events in a file, by river; prints events a second."""

import json
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
from river.stats import Sum
from river.utils import TimeRolling

PATH, LIMIT = sys.argv[1], int(sys.argv[2])
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
events = np.load(PATH)[:LIMIT]
keys, prices = events["key"].tolist(), events["price"].tolist()
times = [datetime.fromtimestamp(t / 1e6, UTC).replace(tzinfo=None) for t in events["time"].tolist()]
# Its count cannot forget: a sum of ones can.
held = defaultdict(lambda: [TimeRolling(Sum, period=period) for period in (HOUR, HOUR, DAY, DAY)])

began = time.perf_counter()
for key, price, moment in zip(keys, prices, times, strict=True):
    count_hour, sum_hour, count_day, sum_day = held[key]
    count_hour.update(1, t=moment)
    sum_hour.update(price, t=moment)
    count_day.update(1, t=moment)
    sum_day.update(price, t=moment)
print(json.dumps({"events_per_s": round(len(keys) / (time.perf_counter() - began))}))
