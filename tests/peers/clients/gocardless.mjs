// GoCardless' SDK, as it is but for the address: the SDK knows two, and an agent leads them here.
import https from "node:https";
import net from "node:net";
import gocardless from "gocardless-nodejs";
import { base, each, token } from "./calls.mjs";

const { hostname, port } = new URL(base);
class Here extends https.Agent {
  createConnection() {
    return net.connect(Number(port), hostname);
  }
}
const client = gocardless(token, "SANDBOX", { proxy: { https: new Here() } });

await each(
  async (key, amount) => {
    const payment = { amount: String(amount), currency: "EUR", links: { mandate: "MD1" }, description: "n".repeat(amount) };
    return (await client.payments.create(payment, key)).id;
  },
  (error) => ({ status: error.response?.statusCode, code: error.code, message: error.message }),
);
