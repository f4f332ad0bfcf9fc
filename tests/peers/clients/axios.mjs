// axios with axios-retry, told to repeat POST too, as its documentation does for those who know that it is safe.
import axios from "axios";
import axiosRetry, { isNetworkError, isRetryableError } from "axios-retry";
import { base, each, order, timeout } from "./calls.mjs";

const client = axios.create({ baseURL: base });
axiosRetry(client, {
  retries: 3,
  retryDelay: axiosRetry.exponentialDelay,
  shouldResetTimeout: true,
  retryCondition: (error) => isNetworkError(error) || isRetryableError(error) || error.code === "ECONNABORTED",
});

await each(
  async (key, amount) => {
    const { body, headers } = order(key, amount);
    return (await client.post("/orders", body, { headers, timeout: timeout(key) })).data.id;
  },
  (error) => ({ status: error.response?.status, code: error.response?.data?.code }),
);
