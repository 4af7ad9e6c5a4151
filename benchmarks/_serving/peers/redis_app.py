"""FastAPI, Redis and LightGBM as one would write them by hand: a packed row of float32 a key, one MGET a request."""

import os
from contextlib import asynccontextmanager

import numpy as np
import redis
import redis.asyncio
from common import COLUMNS, ITEM_ROWS, ITEM_STEPS, NAMES, USER_ROWS, USER_STEPS, Ask, Event, Ranker
from fastapi import FastAPI, Response

LINE = os.environ["PEER_REDIS"]
state = {}


@asynccontextmanager
async def lifespan(app: FastAPI):
    state["redis"] = redis.asyncio.Redis(unix_socket_path=LINE)
    ranker = state["ranker"] = Ranker()
    state["keys"] = {user: [f"u:{user}", *(f"i:{item}" for item in items)] for user, items in ranker.items.items()}
    yield
    await state["redis"].aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str | int]:
    return {"status": "alive", "pid": os.getpid()}


@app.post("/v1/decide/home")
async def decide(ask: Ask) -> Response:
    user, *items = await state["redis"].mget(state["keys"][ask.user])
    rows = np.frombuffer(b"".join(items), np.float32).reshape(len(items), len(COLUMNS["Product"]))
    body = state["ranker"].answer(ask.user, ask.k, np.frombuffer(user, np.float32), rows)
    return Response(body, media_type="application/json")


@app.post("/v1/events", status_code=202)
async def events(batch: list[Event]) -> Response:
    names = list(dict.fromkeys(key for event in batch for key in (f"u:{event.user}", f"i:{event.item}")))
    rows = {
        name: np.frombuffer(row, np.float32).copy()
        for name, row in zip(names, await state["redis"].mget(names), strict=True)
    }
    for event in batch:
        rows[f"u:{event.user}"] += USER_STEPS[event.kind]
        rows[f"i:{event.item}"] += ITEM_STEPS[event.kind]
    await state["redis"].mset({name: row.tobytes() for name, row in rows.items()})
    return Response(b'{"accepted":%d}' % len(batch), 202, media_type="application/json")


if __name__ == "__main__":
    filled = {f"u:{name}": row.tobytes() for name, row in zip(NAMES["users"], USER_ROWS, strict=True)}
    filled |= {f"i:{name}": row.tobytes() for name, row in zip(NAMES["items"], ITEM_ROWS, strict=True)}
    redis.Redis(unix_socket_path=LINE).mset(filled)
