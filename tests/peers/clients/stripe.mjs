// Stripe's SDK, as it is.
import Stripe from "stripe";
import { base, each, timeout, token } from "./calls.mjs";

const { hostname, port } = new URL(base);
const stripe = new Stripe(token, { host: hostname, port, protocol: "http", telemetry: false });

await each(
  async (key, amount) => {
    const charge = { amount, currency: "eur", source: "tok_visa", description: "n".repeat(amount) };
    return (await stripe.charges.create(charge, { idempotencyKey: key, timeout: timeout(key) })).id;
  },
  (error) => ({ raised: error.type, status: error.statusCode, code: error.code }),
);
