"""A shop on Django: a form with its CSRF token, a session, and a message that is shown once.

Nothing in it knows of onlyonce but the tag in the page. Its only argument is a folder for the database; while a file "gate"
is there, an order takes its time.
"""

import os
import sys
import time
from wsgiref.simple_server import WSGIRequestHandler

import django
from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.servers.basehttp import ThreadedWSGIServer
from django.core.wsgi import get_wsgi_application
from django.db import connection, models
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import path

FOLDER = sys.argv[1]

PAGES = {
    "form.html": """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Order</title>
<script src="/.onlyonce/form.js" data-forms="form" defer></script></head><body>
<form method="post" action="{% url 'orders' %}">{% csrf_token %}
<label>Name {{ form.name }}</label>{% for error in form.name.errors %}<p id="error">{{ error }}</p>{% endfor %}
<button id="save">Place order</button></form></body></html>""",
    "order.html": """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Order</title></head><body>
{% for message in messages %}<p class="flash">{{ message }}</p>{% endfor %}<p id="order">{{ order.pk }}</p></body></html>""",
}

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY="of a test",
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.sessions", "django.contrib.messages"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(FOLDER, "django.sqlite3")}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [("django.template.loaders.locmem.Loader", PAGES)],
                "context_processors": ["django.contrib.messages.context_processors.messages"],
            },
        }
    ],
)
django.setup()


class Order(models.Model):
    name = models.CharField(max_length=100)

    class Meta:
        app_label = "shop"


class OrderForm(forms.Form):
    name = forms.CharField(max_length=100, widget=forms.TextInput(attrs={"id": "name"}))

    def clean_name(self):
        name = self.cleaned_data["name"]
        if name == "bad":
            raise forms.ValidationError("No such name.")
        return name


def new(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return render(request, "form.html", {"form": OrderForm()})


def orders(request):
    form = OrderForm(request.POST)
    if not form.is_valid():
        return render(request, "form.html", {"form": form})
    order = Order.objects.create(name=form.cleaned_data["name"])
    while os.path.exists(os.path.join(FOLDER, "gate")):
        time.sleep(0.02)
    messages.success(request, f"Order {order.pk} is placed.")
    return redirect("order", order.pk)


def order(request, number):
    return render(request, "order.html", {"order": Order.objects.get(pk=number)})


def rows(request):
    return HttpResponse(str(Order.objects.count()))


urlpatterns = [
    path("orders/new", new),
    path("orders", orders, name="orders"),
    path("orders/<int:number>", order, name="order"),
    path("rows", rows),
]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


from django.core.management import call_command

call_command("migrate", verbosity=0)
with connection.schema_editor() as schema:
    schema.create_model(Order)
server = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
server.set_app(get_wsgi_application())
print("ready", server.server_port, flush=True)
server.serve_forever()
