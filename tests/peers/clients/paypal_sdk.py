"""PayPal's SDK, as it is but for the address: the SDK knows two, and an adapter leads them here."""

from paypalserversdk.configuration import Environment
from paypalserversdk.exceptions.api_exception import ApiException
from paypalserversdk.http.auth.o_auth_2 import ClientCredentialsAuthCredentials
from paypalserversdk.models.amount_with_breakdown import AmountWithBreakdown
from paypalserversdk.models.o_auth_token import OAuthToken
from paypalserversdk.models.order_request import OrderRequest
from paypalserversdk.models.purchase_unit_request import PurchaseUnitRequest
from paypalserversdk.paypal_serversdk_client import PaypalServersdkClient
from requests import Session
from requests.adapters import HTTPAdapter

from calls import base, each, timeout, token


class Here(HTTPAdapter):
    def send(self, request, **settings):
        request.url = request.url.replace("https://api-m.sandbox.paypal.com", base)
        return super().send(request, **settings)


def create(key, amount):
    session = Session()
    session.mount("https://", Here())
    session.timeout = timeout(key)
    client = PaypalServersdkClient(
        http_client_instance=session,
        environment=Environment.SANDBOX,
        # The token is of an earlier call: the SDK asks for none.
        client_credentials_auth_credentials=ClientCredentialsAuthCredentials("shop", token, OAuthToken(token, "Bearer")),
    )
    total = AmountWithBreakdown(currency_code="EUR", value=str(amount))
    order = OrderRequest("CAPTURE", [PurchaseUnitRequest(amount=total, description="n" * amount)])
    return client.orders.create_order({"body": order, "paypal_request_id": key}).body.id


def told(error):
    if not isinstance(error, ApiException):
        return {}
    return {"status": error.response_code, "code": error.details[0].issue if error.details else None}


each(create, told)
