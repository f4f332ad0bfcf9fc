// Square's SDK, as it is.
import { SquareClient } from "square";
import { base, each, timeout, token } from "./calls.mjs";

const square = new SquareClient({ token, environment: base });

await each(
  async (key, amount) => {
    const payment = {
      idempotencyKey: key,
      sourceId: "cnon:card-nonce-ok",
      amountMoney: { amount: BigInt(amount), currency: "EUR" },
      note: "n".repeat(amount),
    };
    const created = await square.payments.create(payment, { timeoutInSeconds: timeout(key) / 1000 });
    return created.payment?.id;
  },
  (error) => (error.statusCode ? { status: error.statusCode, code: error.errors[0].code } : {}),
);
