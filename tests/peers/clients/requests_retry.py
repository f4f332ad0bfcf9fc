"""requests, with urllib3's Retry told to repeat POST too."""

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from calls import Refused, base, each, order, timeout

retry = Retry(
    total=3, backoff_factor=0.25, allowed_methods=None, status_forcelist=[500, 502, 503, 504], raise_on_status=False
)
session = requests.Session()
session.mount("http://", HTTPAdapter(max_retries=retry))


def create(key, amount):
    headers, body = order(key, amount)
    response = session.post(f"{base}/orders", data=body, headers=headers, timeout=timeout(key))
    if not response.ok:
        raise Refused(response.status_code, response.text)
    return response.json()["id"]


each(create)
