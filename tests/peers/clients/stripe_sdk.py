"""Stripe's SDK, told to repeat as often as that for Node does by itself."""

from stripe import RequestsClient, StripeClient

from calls import base, each, timeout, token


def create(key, amount):
    stripe = StripeClient(
        token, base_addresses={"api": base}, max_network_retries=2, http_client=RequestsClient(timeout=timeout(key))
    )
    charge = {"amount": amount, "currency": "eur", "source": "tok_visa", "description": "n" * amount}
    return stripe.v1.charges.create(charge, {"idempotency_key": key}).id


def told(error):
    # `error.code` is set for some of the statuses only.
    return {"status": error.http_status, "code": error.error.code if error.error else None}


each(create, told)
