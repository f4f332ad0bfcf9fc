use std::fmt;

/// A known sender of requests: `preset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Clients of draft-ietf-httpapi-idempotency-key-header, taken by its letter.
    Ietf,
    /// Clients of an API like Stripe's.
    Stripe,
    /// Clients of an API like Square's.
    Square,
    /// Clients of an API like PayPal's.
    Paypal,
    /// Clients of an API like GoCardless'.
    Gocardless,
    /// Webhooks as <https://www.standardwebhooks.com> has them.
    StandardWebhooks,
    /// Webhooks of Stripe.
    StripeWebhook,
    /// Webhooks of GitHub.
    GithubWebhook,
    /// Webhooks of Shopify.
    ShopifyWebhook,
    /// CloudEvents in binary mode.
    Cloudevents,
}

impl Preset {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Ietf,
        Self::Stripe,
        Self::Square,
        Self::Paypal,
        Self::Gocardless,
        Self::StandardWebhooks,
        Self::StripeWebhook,
        Self::GithubWebhook,
        Self::ShopifyWebhook,
        Self::Cloudevents,
    ];

    /// As it is written in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ietf => "ietf",
            Self::Stripe => "stripe",
            Self::Square => "square",
            Self::Paypal => "paypal",
            Self::Gocardless => "gocardless",
            Self::StandardWebhooks => "standard-webhooks",
            Self::StripeWebhook => "stripe-webhook",
            Self::GithubWebhook => "github-webhook",
            Self::ShopifyWebhook => "shopify-webhook",
            Self::Cloudevents => "cloudevents",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
