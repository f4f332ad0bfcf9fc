// An API behind express-idempotency, as its documentation shows it. It counts its orders.

import express from "express";
import middleware from "express-idempotency";

const { idempotency, getSharedIdempotencyService } = middleware;
const orders = [];
const app = express();
app.use(express.json());
app.use(idempotency());

app.get("/orders", (request, response) => response.json({ total: orders.length }));
app.post("/orders", async (request, response) => {
  // The middleware has answered.
  if (getSharedIdempotencyService().isHit(request)) return;
  orders.push(request.body);
  const number = orders.length;
  await new Promise((done) => setTimeout(done, 100));
  response.status(201).location(`/orders/${number}`).json({ id: `order-${number}` });
});
// What comes of a refusal: its status, and a text.
app.use((error, request, response, next) => {
  if (response.headersSent) return next(error);
  response.type("text/plain").send(error.message);
});

const server = app.listen(0, "127.0.0.1", () => console.log("port", server.address().port));
