"""FastAPI, Feast on Redis and LightGBM."""

import os
from contextlib import asynccontextmanager

import numpy as np
from common import COLUMNS, ITEM_ROWS, USER_ROWS, Ask, Ranker
from fastapi import FastAPI, Response
from feast_repository import fill, store

FEATURES = {view: [f"{view}:{name}" for name in names] for view, names in COLUMNS.items()}
state = {}


@asynccontextmanager
async def lifespan(app: FastAPI):
    state["store"], state["ranker"] = store(), Ranker()
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str | int]:
    return {"status": "alive", "pid": os.getpid()}


def rows(view: str, key: str, names: list[str]) -> np.ndarray:
    found = state["store"].get_online_features(FEATURES[view], [{key: name} for name in names]).to_dict()
    return np.array([found[name] for name in COLUMNS[view]], np.float32).T


@app.post("/v1/decide/home")
async def decide(ask: Ask) -> Response:
    # Asked apart: the shopper's row for each of 200 items would double what Feast has to copy.
    user = rows("Shopper", "user", [ask.user])[0]
    items = rows("Product", "item", state["ranker"].items[ask.user])
    return Response(state["ranker"].answer(ask.user, ask.k, user, items), media_type="application/json")


if __name__ == "__main__":
    fill(USER_ROWS, ITEM_ROWS)
