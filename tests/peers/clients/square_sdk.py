"""Square's SDK, as it is."""

from square import Square
from square.core.api_error import ApiError

from calls import base, each, timeout, token


def create(key, amount):
    square = Square(token=token, base_url=base, timeout=timeout(key))
    money = {"amount": amount, "currency": "EUR"}
    created = square.payments.create(
        idempotency_key=key, source_id="cnon:card-nonce-ok", amount_money=money, note="n" * amount
    )
    return created.payment.id


def told(error):
    return {"status": error.status_code, "code": error.errors[0].code} if isinstance(error, ApiError) else {}


each(create, told)
