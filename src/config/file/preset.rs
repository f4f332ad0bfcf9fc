//! The keys that each preset sets.

use std::time::Duration;

use http::{HeaderName, header};

use super::layer::{FingerprintChoice, Layer, MissingKey};
use super::setting::Setting;
use crate::rule::{JsonPointer, KeyFormat, Policy, Preset, Selector};

/// The keys that `preset` sets, and no others.
pub(super) fn layer(preset: Preset) -> Layer {
    match preset {
        Preset::Ietf => Layer {
            key: key(["idempotency-key"]),
            key_format: Setting::Preset(KeyFormat::Quoted),
            on_missing_key: Setting::Preset(MissingKey::Reject),
            ..Layer::default()
        },
        Preset::Stripe => Layer {
            key: key(["idempotency-key"]),
            key_max_length: Setting::Preset(255),
            policy: Setting::Preset(Policy::Strict),
            ..by_credential()
        },
        Preset::Square => Layer { key: member("/idempotency_key"), ..by_credential() },
        Preset::Paypal => Layer { key: key(["paypal-request-id"]), ..by_credential() },
        Preset::Gocardless => {
            Layer { key: key(["idempotency-key"]), policy: Setting::Preset(Policy::Strict), ..by_credential() }
        }
        Preset::StandardWebhooks => Layer { key: key(["webhook-id"]), ..event() },
        Preset::StripeWebhook => Layer { key: member("/id"), ..event() },
        Preset::GithubWebhook => Layer { key: key(["x-github-delivery"]), ..event() },
        Preset::ShopifyWebhook => Layer { key: key(["x-shopify-webhook-id"]), ..event() },
        Preset::Cloudevents => Layer { key: key(["ce-source", "ce-id"]), ..event() },
    }
}

/// Senders of webhooks retry for up to three days.
const THREE_DAYS: Duration = Duration::from_secs(72 * 3600);

/// The credential is the scope of the key.
fn by_credential() -> Layer {
    Layer {
        scope: Setting::Preset(vec![Selector::Header(header::AUTHORIZATION)]),
        retention: Setting::Preset(THREE_DAYS),
        ..Layer::default()
    }
}

/// The source assigns the id of an event, so that it needs no scope. A redelivery may have a new timestamp in its body, so
/// that the body is not compared. The event must arrive at each address that it is sent to.
fn event() -> Layer {
    Layer {
        scope: Setting::Preset(Vec::new()),
        fingerprint: Setting::Preset(FingerprintChoice::None),
        target_in_name: Setting::Preset(true),
        policy: Setting::Preset(Policy::Lenient),
        retention: Setting::Preset(THREE_DAYS),
        ..Layer::default()
    }
}

fn key<const N: usize>(names: [&'static str; N]) -> Setting<Vec<Selector>> {
    Setting::Preset(names.map(|name| Selector::Header(HeaderName::from_static(name))).into())
}

fn member(pointer: &str) -> Setting<Vec<Selector>> {
    JsonPointer::parse(pointer).map_or(Setting::Absent, |pointer| Setting::Preset(vec![Selector::Json(pointer)]))
}
