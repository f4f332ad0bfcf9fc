// Node's two clients: fetch, and http with an agent that keeps its connections. Prints one JSON object.
import http from "node:http";

const base = process.argv[2];
const order = { method: "POST", headers: { "Idempotency-Key": "17", "Content-Type": "application/json" }, body: '{"item":"book"}' };

async function told(response) {
  return { status: response.status, replayed: response.headers.get("idempotent-replayed"), body: await response.text() };
}

// A double click: both at once, then once more.
const clicks = await Promise.all([fetch(`${base}/orders`, order), fetch(`${base}/orders`, order)]);
const twice = await Promise.all(clicks.map(told));
const again = await told(await fetch(`${base}/orders`, order));

// A body of unknown length, as a stream makes it.
const pieces = new ReadableStream({
  async start(controller) {
    for (let i = 0; i < 64; i++) controller.enqueue(new Uint8Array(64 * 1024).fill(120));
    controller.close();
  },
});
const upload = await told(await fetch(`${base}/upload`, { method: "POST", body: pieces, duplex: "half" }));

// A client that asks before it sends the body.
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
function expecting(key) {
  return new Promise((resolve, reject) => {
    const headers = { Expect: "100-continue", "Idempotency-Key": key, "Content-Length": 4 };
    const request = http.request(`${base}/orders`, { method: "POST", agent, headers });
    let asked = false;
    request.on("continue", () => {
      asked = true;
      request.end("book");
    });
    request.on("response", (response) => {
      let body = "";
      response.on("data", (piece) => (body += piece));
      response.on("end", () => resolve({ asked, status: response.statusCode, reused: request.reusedSocket, body }));
    });
    request.on("error", reject);
    request.flushHeaders();
  });
}
const first = await expecting("18");
const repeat = await expecting("18");
agent.destroy();

console.log(JSON.stringify({ twice, again, upload, first, repeat }));
