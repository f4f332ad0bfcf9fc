"""Svix' SDK, as it is."""

from svix.api import MessageCreateOptions, MessageIn, Svix, SvixOptions
from svix.exceptions import HttpError

from calls import base, each, timeout, token


def create(key, amount):
    svix = Svix(token, SvixOptions(server_url=base, timeout=timeout(key)))
    message = MessageIn(event_type="order.created", payload={"amount": amount, "note": "n" * amount})
    return svix.message.create("app", message, MessageCreateOptions(idempotency_key=key)).id


each(create, lambda error: {"status": error.status_code, "code": error.code} if isinstance(error, HttpError) else {})
