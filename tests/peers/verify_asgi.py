"""An API behind asgi-idempotency-header, as its documentation shows it. It counts its orders."""

import asyncio
import socket

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from idempotency_header_middleware import IdempotencyHeaderMiddleware
from idempotency_header_middleware.backends import MemoryBackend

app = FastAPI()
app.add_middleware(IdempotencyHeaderMiddleware, backend=MemoryBackend())
orders = []


@app.get("/orders")
async def count():
    return {"total": len(orders)}


@app.post("/orders")
async def create(request: Request):
    orders.append(await request.json())
    number = len(orders)
    await asyncio.sleep(0.1)
    return JSONResponse({"id": f"order-{number}"}, status_code=201, headers={"Location": f"/orders/{number}"})



listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print("port", listener.getsockname()[1], flush=True)
asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener]))
