// Node's fetch, in a loop.
import { base, each, order, patiently, timeout } from "./calls.mjs";

await each((key, amount) =>
  patiently(async () => {
    const signal = AbortSignal.timeout(timeout(key));
    const response = await fetch(`${base}/orders`, { ...order(key, amount), signal });
    return { status: response.status, body: await response.text(), retryAfter: response.headers.get("retry-after") };
  }),
);
