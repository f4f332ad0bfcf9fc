// PayPal's SDK, as it is but for the address: the SDK knows two, and an agent leads them here.
import https from "node:https";
import net from "node:net";
import { CheckoutPaymentIntent, Client, Environment, OrdersController } from "@paypal/paypal-server-sdk";
import { base, each, timeout, token } from "./calls.mjs";

const { hostname, port } = new URL(base);
class Here extends https.Agent {
  createConnection() {
    return net.connect(Number(port), hostname);
  }
}
const httpsAgent = new Here();
// Of an earlier call: the SDK asks for none.
const oAuthToken = { accessToken: token, tokenType: "Bearer", expiresIn: 3600n, expiry: 4000000000n };

await each(
  async (key, amount) => {
    const orders = new OrdersController(
      new Client({
        clientCredentialsAuthCredentials: { oAuthClientId: "shop", oAuthClientSecret: token, oAuthToken },
        environment: Environment.Sandbox,
        timeout: timeout(key),
        httpClientOptions: { httpsAgent, timeout: timeout(key) },
      }),
    );
    const purchaseUnits = [{ amount: { currencyCode: "EUR", value: String(amount) }, description: "n".repeat(amount) }];
    const order = { body: { intent: CheckoutPaymentIntent.Capture, purchaseUnits } };
    return (await orders.createOrder({ ...order, paypalRequestId: key })).result.id;
  },
  (error) => {
    if (!error.statusCode) return {};
    // It parses the body for the statuses that PayPal documents.
    return { status: error.statusCode, code: (error.result ?? JSON.parse(error.body)).details?.[0]?.issue };
  },
);
