"""Python's http.client, in a loop."""

from http.client import HTTPConnection

from calls import base, each, order, patiently, timeout


def create(key, amount):
    def post():
        headers, body = order(key, amount)
        connection = HTTPConnection(base.removeprefix("http://"), timeout=timeout(key))
        try:
            connection.request("POST", "/orders", body, headers)
            response = connection.getresponse()
            return response.status, response.read(), response.getheader("Retry-After")
        finally:
            connection.close()

    return patiently(post)


each(create)
