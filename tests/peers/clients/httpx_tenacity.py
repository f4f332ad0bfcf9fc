"""httpx, with tenacity around it."""

import httpx
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from calls import base, each, order, timeout


def helps(error):
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in (409, 429)
    return isinstance(error, httpx.TransportError)


@retry(
    retry=retry_if_exception(helps),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.5, max=2),
    reraise=True,
)
def create(key, amount):
    headers, body = order(key, amount)
    response = httpx.post(f"{base}/orders", content=body, headers=headers, timeout=timeout(key))
    return response.raise_for_status().json()["id"]


def told(error):
    response = getattr(error, "response", None)
    return {} if response is None else {"status": response.status_code, "code": response.json().get("code")}


each(create, told)
