// What the clients in JavaScript have in common. `node CLIENT.mjs http://HOST:PORT KEY[=AMOUNT]...` creates one thing for
// each key, and prints what the caller saw of it, as one line of JSON.
export const [base, ...calls] = process.argv.slice(2);
export const token = "secret";

// Who asks for something slow does not wait for it.
export const timeout = (key) => (key.startsWith("slow") ? 3000 : 60000);

// A response that is no success, where the client raises nothing by itself.
export class Refused {
  constructor(status, body) {
    let problem = {};
    try {
      problem = typeof body === "string" ? JSON.parse(body) : body;
    } catch {}
    this.status = status;
    this.code = problem?.code ?? null;
  }
}

// `create(key, amount)` gives the id of what was created; `told(error)` says what an exception carries.
export async function each(create, told = () => ({})) {
  for (const call of calls) {
    const [key, amount] = call.split("=");
    const began = performance.now();
    let saw;
    try {
      saw = { id: (await create(key, Number(amount ?? 1))) ?? null };
    } catch (error) {
      saw = error instanceof Refused ? error : { raised: error.constructor.name, ...told(error) };
    }
    console.log(JSON.stringify({ key, ...saw, ms: Math.round(performance.now() - began) }));
  }
  // Some clients keep timers and connections, which would keep the process.
  process.exit();
}

// The loop that people write around a client that does not repeat by itself.
export async function patiently(send) {
  for (let tries = 1; ; tries++) {
    let answer;
    try {
      answer = await send();
    } catch (error) {
      if (tries === 4) throw error;
    }
    if (answer) {
      const { status, body, retryAfter } = answer;
      if (status < 300) return JSON.parse(body).id;
      if (tries === 4 || !(status >= 500 || (status === 409 && retryAfter))) throw new Refused(status, body);
    }
    await new Promise((resolve) => setTimeout(resolve, 1000 * (answer?.retryAfter ?? 0.25 * tries)));
  }
}

export const order = (key, amount) => ({
  method: "POST",
  headers: { "Content-Type": "application/json", "Idempotency-Key": key, Authorization: `Bearer ${token}` },
  body: JSON.stringify({ amount, note: "n".repeat(amount) }),
});
