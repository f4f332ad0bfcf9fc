// got, told to repeat POST too.
import got from "got";
import { base, each, order, timeout } from "./calls.mjs";

await each(
  async (key, amount) => {
    const options = { ...order(key, amount), retry: { methods: ["POST"], limit: 2 }, timeout: { response: timeout(key) } };
    return (await got(`${base}/orders`, options).json()).id;
  },
  (error) => {
    const status = error.response?.statusCode;
    return { status, code: status ? JSON.parse(error.response.body).code : undefined };
  },
);
