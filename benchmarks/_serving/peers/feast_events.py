"""The stream job beside Feast: it holds the rows, and writes those that changed four times a second."""

import os
import threading
import time

from common import ITEM_ROWS, ITEM_STEPS, NAMES, USER_ROWS, USER_STEPS, Event
from fastapi import FastAPI, Response
from feast_repository import store, write

EVERY = 0.25
app = FastAPI()
user_place = {name: i for i, name in enumerate(NAMES["users"])}
item_place = {name: i for i, name in enumerate(NAMES["items"])}
changed = {"Shopper": set(), "Product": set()}


def flush() -> None:
    filled = store()
    while True:
        time.sleep(EVERY)
        for view, names, rows in (("Shopper", NAMES["users"], USER_ROWS), ("Product", NAMES["items"], ITEM_ROWS)):
            places, changed[view] = sorted(changed[view]), set()
            if places:
                write(filled, view, [names[i] for i in places], rows[places])


threading.Thread(target=flush, daemon=True).start()


@app.get("/healthz")
async def healthz() -> dict[str, str | int]:
    return {"status": "alive", "pid": os.getpid()}


@app.post("/v1/events", status_code=202)
async def events(batch: list[Event]) -> Response:
    for event in batch:
        user, item = user_place[event.user], item_place[event.item]
        USER_ROWS[user] += USER_STEPS[event.kind]
        ITEM_ROWS[item] += ITEM_STEPS[event.kind]
        changed["Shopper"].add(user)
        changed["Product"].add(item)
    return Response(b'{"accepted":%d}' % len(batch), 202, media_type="application/json")
