//! The SDKs of the presets' APIs, and Svix': each problem is an exception with its code, never a result; a replay is
//! the object.

use super::node;
use super::peer::python;
use super::trial::{Client, clients};

const CHARGES: &str = "/v1/charges";
const SQUARE_PAYMENTS: &str = "/v2/payments";
const CHECKOUT: &str = "/v2/checkout/orders";
const GOCARDLESS_PAYMENTS: &str = "/payments";
const MESSAGES: &str = "/api/v1/app/{app}/msg";

const STRIPE: &str = "preset = \"stripe\"";
const SQUARE: &str = "preset = \"square\"";
const PAYPAL: &str = "preset = \"paypal\"";
const GOCARDLESS: &str = "preset = \"gocardless\"";
/// Its clients read `code` and `detail`, which all problems have. The Python client expects a list in `detail` of a
/// 422, and fails with its own error.
const SVIX: &str = "on_mismatch = \"conflict\"";

clients! {
    stripe_for_node = Client {
        name: "Stripe for Node", path: CHARGES, rule: STRIPE, raises: true,
        command: || node::client("stripe.mjs"),
    };
    stripe_for_python = Client {
        name: "Stripe for Python", path: CHARGES, rule: STRIPE, raises: true,
        command: || python("clients/stripe_sdk.py"),
    };
    square_for_node = Client {
        name: "Square for Node", path: SQUARE_PAYMENTS, rule: SQUARE, raises: true,
        command: || node::client("square.mjs"),
    };
    #[ignore = "tests/run --all"]
    square_for_python = Client {
        name: "Square for Python", path: SQUARE_PAYMENTS, rule: SQUARE, raises: true,
        command: || python("clients/square_sdk.py"),
    };
    paypal_for_node = Client {
        name: "PayPal for Node", path: CHECKOUT, rule: PAYPAL, raises: true,
        command: || node::client("paypal.mjs"),
    };
    #[ignore = "tests/run --all"]
    paypal_for_python = Client {
        name: "PayPal for Python", path: CHECKOUT, rule: PAYPAL, raises: true,
        command: || python("clients/paypal_sdk.py"),
    };
    #[ignore = "tests/run --all"]
    gocardless_for_node = Client {
        name: "GoCardless for Node", path: GOCARDLESS_PAYMENTS, rule: GOCARDLESS, raises: true,
        command: || node::client("gocardless.mjs"),
    };
    gocardless_for_python = Client {
        name: "GoCardless for Python", path: GOCARDLESS_PAYMENTS, rule: GOCARDLESS, raises: true,
        command: || python("clients/gocardless_sdk.py"),
    };
    #[ignore = "tests/run --all"]
    svix_for_node = Client {
        name: "Svix for Node", path: MESSAGES, rule: SVIX, raises: true,
        command: || node::client("svix.mjs"),
    };
    #[ignore = "tests/run --all"]
    svix_for_python = Client {
        name: "Svix for Python", path: MESSAGES, rule: SVIX, raises: true,
        command: || python("clients/svix_sdk.py"),
    };
}
