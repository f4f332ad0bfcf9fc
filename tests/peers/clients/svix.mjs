// Svix' SDK, as it is.
import { ApiException, Svix } from "svix";
import { base, each, timeout, token } from "./calls.mjs";

await each(
  async (key, amount) => {
    const svix = new Svix(token, { serverUrl: base, requestTimeout: timeout(key) });
    const message = { eventType: "order.created", payload: { amount, note: "n".repeat(amount) } };
    return (await svix.message.create("app", message, { idempotencyKey: key })).id;
  },
  (error) => {
    if (!(error instanceof ApiException)) return {};
    // Of a 5xx it keeps the text.
    const body = typeof error.body === "string" ? JSON.parse(error.body) : error.body;
    return { status: error.code, code: body.code };
  },
);
