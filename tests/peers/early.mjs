// Node's http writes what it is given, and tells of a broken pipe when that comes first.

import http from "node:http";

const [host, rounds] = [process.argv[2], Number(process.argv[3])];
const [hostname, port] = host.split(":");
const kept = new http.Agent({ keepAlive: true, maxSockets: 1 });

function ask(path, headers, body, chunked, agent) {
  return new Promise((resolve, reject) => {
    const length = chunked ? {} : { "Content-Length": body.length };
    const options = { hostname, port, path, method: "POST", agent, headers: { ...headers, ...length } };
    const request = http.request(options, (answer) => {
      let text = "";
      answer.on("data", (piece) => (text += piece));
      answer.on("end", () => resolve({ status: answer.statusCode, text }));
      answer.on("error", reject);
    });
    request.on("error", reject);
    if (chunked) {
      for (let at = 0; at < body.length; at += 65536) request.write(body.subarray(at, at + 65536));
      request.end();
    } else {
      request.end(body);
    }
  });
}

for (const size of [66 << 10, 2 << 20, 10 << 20, 30 << 20]) {
  const body = Buffer.alloc(size);
  for (let round = 0; round < (size <= 2 << 20 ? rounds : 2); round++) {
    for (const [path, headers, status] of [
      ["/orders", { "Idempotency-Key": "k" }, 413],
      ["/required", {}, 400],
      ["/upload", {}, 413],
    ]) {
      if (path === "/orders" && size <= 1 << 20) continue;
      for (const chunked of [false, true]) {
        for (const agent of path === "/upload" ? [false] : [false, kept]) {
          const answer = await ask(path, headers, body, chunked, agent).catch((error) => ({ status: error.code }));
          if (answer.status !== status || !answer.text) {
            console.error(path, size, chunked, agent !== false, answer);
            process.exit(1);
          }
        }
      }
    }
  }
}
kept.destroy();
console.log("all as they should be");
