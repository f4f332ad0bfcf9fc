use super::words::words;

words! {
    /// A known sender of requests: `preset`.
    pub enum Preset {
        /// Clients that follow draft-ietf-httpapi-idempotency-key-header exactly.
        Ietf = "ietf",
        /// Clients of an API like Stripe's.
        Stripe = "stripe",
        /// Clients of an API like Square's.
        Square = "square",
        /// Clients of an API like PayPal's.
        Paypal = "paypal",
        /// Clients of an API like GoCardless'.
        Gocardless = "gocardless",
        /// Webhooks as <https://www.standardwebhooks.com> has them.
        StandardWebhooks = "standard-webhooks",
        /// Webhooks of Stripe.
        StripeWebhook = "stripe-webhook",
        /// Webhooks of GitHub.
        GithubWebhook = "github-webhook",
        /// Webhooks of Shopify.
        ShopifyWebhook = "shopify-webhook",
        /// CloudEvents in binary mode.
        Cloudevents = "cloudevents",
    }
}
