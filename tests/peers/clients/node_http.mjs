// Node's http with an agent that keeps its connections, in a loop.
import http from "node:http";
import { base, each, order, patiently, timeout } from "./calls.mjs";

const agent = new http.Agent({ keepAlive: true });

function post(key, amount) {
  const { body, ...options } = order(key, amount);
  return new Promise((resolve, reject) => {
    const request = http.request(`${base}/orders`, { ...options, agent, timeout: timeout(key) }, (response) => {
      let text = "";
      response.on("data", (piece) => (text += piece));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode, body: text, retryAfter: response.headers["retry-after"] }),
      );
    });
    request.on("timeout", () => request.destroy(new Error("timeout")));
    request.on("error", reject);
    request.end(body);
  });
}

await each((key, amount) => patiently(() => post(key, amount)));
