// undici's RetryAgent, told to repeat POST too.
import { Agent, RetryAgent, request } from "undici";
import { Refused, base, each, order, timeout } from "./calls.mjs";

await each(
  async (key, amount) => {
    const agent = new Agent({ headersTimeout: timeout(key) });
    const dispatcher = new RetryAgent(agent, { methods: ["POST"], maxRetries: 3, throwOnError: false });
    const response = await request(`${base}/orders`, { ...order(key, amount), dispatcher });
    const body = await response.body.text();
    if (response.statusCode >= 300) throw new Refused(response.statusCode, body);
    return JSON.parse(body).id;
  },
  (error) => ({ raised: error.code ?? error.constructor.name }),
);
