//! `onlyonce check` with a running sidecar: the records that it would no longer find with this file.

use std::path::Path;

use http::Method;

use super::client::{AdminCallError, AdminClient};
use super::{block_on, records};
use crate::admin;
use crate::admin::RecordPlacement;
use crate::admin::shape::RulesPage;
use crate::advice::{Warning, Weight};
use crate::config::Config;
use crate::key::DigestKey;
use crate::rule::{FORGOTTEN, ForgottenRoute, Naming, forgotten};

/// The comparison with a running sidecar.
pub(super) struct SidecarComparison {
    /// A summary.
    pub(super) said: String,
    /// Warnings about records that it would no longer find.
    pub(super) warnings: Vec<Warning>,
}

impl SidecarComparison {
    /// Asks the sidecar of this configuration, or the one at `admin`. It is no error if there is none.
    pub(super) fn ask(config: &Config, file: &Path, admin: Option<&str>) -> Result<Self, AdminCallError> {
        let none = |said: String| Self { said, warnings: Vec::new() };
        let client = match AdminClient::new(admin, file) {
            Ok(client) => client.hurried(),
            Err(why) if admin.is_some() => return Err(AdminCallError::Usage(why)),
            Err(why) => {
                let why = why.lines().next().unwrap_or_default();
                return Ok(none(format!("not asked: {}", why.strip_prefix("error: ").unwrap_or(why))));
            }
        };
        let key = config.store.digest_key.as_ref().map(|secret| DigestKey::from_secret(secret.expose()));
        let asked = key.map(|key| format!("?digest_key={}", admin::check(&key))).unwrap_or_default();
        let answer = block_on(client.ask::<RulesPage>(Method::GET, &format!("/rules{asked}"), None::<&()>))?;
        Ok(match answer {
            Ok(in_force) => {
                let url = client.url();
                let warnings = compare(&in_force, config, &url);
                let said = match warnings.len() {
                    0 => format!("{url} names its records as this file does"),
                    _ => format!("{url} names records in another way than this file: see the warnings"),
                };
                Self { said, warnings }
            }
            Err(AdminCallError::Unreachable(_)) => none(format!("none answers at {}", client.url())),
            Err(failure) => none(format!("cannot be compared with: {}", records::why(&failure, &client))),
        })
    }
}

/// Warnings about records that the sidecar would no longer find.
fn compare(running: &RulesPage, config: &Config, url: &str) -> Vec<Warning> {
    let warning = |route: Option<String>, text: String, advice: &str| Warning {
        name: "forgets-keys",
        weight: Weight::Warning,
        route: route.map(Into::into),
        text,
        advice: advice.to_owned(),
    };
    let of_routes = forgotten(&running.routes, &Naming::all(&config.routes)).into_iter();
    let of_routes = of_routes.map(|ForgottenRoute { route, why }| {
        let text = format!("{why}. Once the sidecar at {url} uses this file, {FORGOTTEN}");
        warning(Some(route), text, BY_RELOAD)
    });
    let of_store = running.keeping.changes(&RecordPlacement::of(&config.store), running.same_digest_key).into_iter();
    let of_store = of_store.map(|part| {
        let text = format!("{part}. Once the sidecar at {url} is started with this file, {FORGOTTEN}");
        warning(None, text, AT_START)
    });
    of_store.chain(of_routes).collect()
}

const BY_RELOAD: &str = "a sidecar uses a changed file within seconds: put it in place when nobody repeats what was \
                         sent before, or leave name, key and scope as they are";
const AT_START: &str =
    "start it when nobody repeats what was sent before, or leave url, prefix and digest_key as they are";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_sidecar_would_forget_is_told_route_by_route() {
        let parse = |store: &str, key: &str| {
            let text = format!(
                "upstream.url = \"http://127.0.0.1:1\"\nstore.url = \"{store}\"\n\
                 [[route]]\nname = \"orders\"\npath = \"/orders\"\nscope = []\nkey = \"{key}\"\n"
            );
            crate::config::parse("test", &text, &|_| None).expect("a configuration")
        };
        let running = parse("memory:", "header:a");
        let keeping = RecordPlacement::of(&running.store);
        let running = RulesPage { routes: Naming::all(&running.routes), keeping, same_digest_key: None };
        let told = |config: &Config| -> Vec<(Option<String>, String)> {
            let warnings = compare(&running, config, "http://127.0.0.1:9464");
            warnings.into_iter().map(|it| (it.route.map(|route| route.to_string()), it.text)).collect()
        };
        assert_eq!(told(&parse("memory:", "header:a")), []);
        let changed = told(&parse("redis://127.0.0.1", "header:b"));
        assert_eq!(changed.len(), 2, "{changed:?}");
        assert!(changed[0].1.starts_with("store.url was memory:, and is redis://127.0.0.1:6379/0. "), "{changed:?}");
        assert_eq!(changed[1].0.as_deref(), Some("orders"));
        assert!(changed[1].1.starts_with("key was [header:a], and is [header:b]. Once the sidecar"), "{changed:?}");
    }
}
