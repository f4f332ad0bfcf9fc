"""GoCardless' SDK, as it is."""

import gocardless_pro
from gocardless_pro.errors import ApiError

from calls import base, each, timeout, token


def create(key, amount):
    client = gocardless_pro.Client(access_token=token, base_url=base, timeout=timeout(key))
    payment = {"amount": amount, "currency": "EUR", "links": {"mandate": "MD1"}, "description": "n" * amount}
    return client.payments.create(payment, headers={"Idempotency-Key": key}).id


each(create, lambda error: {"code": error.code} if isinstance(error, ApiError) else {})
