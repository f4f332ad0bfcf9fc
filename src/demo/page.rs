//! What the demo shows in a browser.

use std::fmt::Write;
use std::net::SocketAddr;

use super::ledger::{Invoice, Ledger, Way};
use super::{DemoAddresses, reachable};
use crate::text::escape_html;

const PAGE: &str = include_str!("page.html");
const INVOICE: &str = include_str!("invoice.html");
const FORM: &str = include_str!("form.html");
/// The style sheet of all of them.
pub(super) const STYLE: &str = include_str!("style.css");
/// What the page and the form do in a browser.
pub(super) const PAGE_SCRIPT: &str = include_str!("page.js");
pub(super) const FORM_SCRIPT: &str = include_str!("form.js");

/// The number of listed groups.
const LISTED: usize = 6;

/// The page with the three forms in frames, whose addresses are under the name by which the browser has reached the page
/// (`Host`).
pub(super) fn page(host: Option<&str>, places: DemoAddresses, ledger: &Ledger) -> String {
    let url = |address: SocketAddr| match host.and_then(name) {
        Some(name) => format!("http://{name}:{}", address.port()),
        None => format!("http://{}", reachable(address)),
    };
    PAGE.replace("{proxy}", &escape_html(&url(places.proxy)))
        .replace("{backend}", &escape_html(&url(places.backend)))
        .replace("{guard_ledger}", &list(&ledger.intents(Way::Guard)))
        .replace("{proxy_ledger}", &list(&ledger.intents(Way::Onlyonce)))
        .replace("{backend_ledger}", &list(&ledger.intents(Way::Direct)))
}

/// One form. With the form guard, its script makes the key; without it, each page has a new one.
pub(super) fn form(way: Way) -> String {
    let (name, script, guard) = match way {
        Way::Guard => ("guard", "<script src=\"/.onlyonce/form.js\" defer></script>\n", " data-onlyonce"),
        Way::Onlyonce => ("onlyonce", "", ""),
        Way::Direct => ("direct", "", ""),
    };
    let key = match way {
        Way::Guard => String::new(),
        Way::Onlyonce | Way::Direct => {
            format!("\n  <input type=\"hidden\" name=\"idempotency_key\" value=\"{}\">", key())
        }
    };
    FORM.replace("{script}", script).replace("{guard}", guard).replace("{way}", name).replace("{key}", &key)
}

/// `Host` without the port.
fn name(host: &str) -> Option<&str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    (!name.is_empty()).then_some(name)
}

/// One invoice.
pub(super) fn invoice(invoice: &Invoice) -> String {
    INVOICE
        .replace("{number}", &escape_html(&invoice.number))
        .replace("{amount}", &escape_html(&invoice.order.amount))
        .replace("{customer}", &escape_html(&invoice.order.customer))
}

fn list(intents: &[Vec<Invoice>]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = match intents.iter().map(Vec::len).sum::<usize>() {
        0 => Ok(()),
        1 => writeln!(out, "<li class=\"total\">1 invoice in all</li>"),
        all => writeln!(out, "<li class=\"total\">{all} invoices in all</li>"),
    };
    for intent in intents.iter().take(LISTED) {
        let (class, count) = match intent.len() {
            1 => ("one", "1 invoice for one key".to_owned()),
            n => ("many", format!("{n} invoices for one key")),
        };
        // Writing to a String cannot fail.
        let _ = write!(out, "<li class=\"{class}\"><strong>{count}</strong><ul>");
        for Invoice { number, order, at_work, .. } in intent {
            let class = if *at_work { " class=\"work\"" } else { "" };
            let (customer, amount) = (escape_html(&order.customer), escape_html(&order.amount));
            let amount = if *at_work { "being created" } else { &amount };
            let _ = write!(out, "<li{class}><b>{number}</b> <span>{customer}</span> <span>{amount}</span></li>");
        }
        out.push_str("</ul></li>\n");
    }
    match intents.len().saturating_sub(LISTED) {
        0 if intents.is_empty() => out.push_str("<li class=\"none\">No invoices.</li>"),
        0 => {}
        more => {
            let _ = write!(out, "<li class=\"none\">and {more} more before</li>");
        }
    }
    out
}

/// A new key for each form.
fn key() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the operating system gives out random bytes");
    format!("form-{:016x}", u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::ledger::InvoiceOrder;

    fn places() -> DemoAddresses {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        DemoAddresses { proxy: at(8080), backend: at(8081), admin: at(8082) }
    }

    #[test]
    fn nothing_that_was_typed_in_becomes_markup() {
        let ledger = Ledger::default();
        ledger.begin(InvoiceOrder { customer: "<b>Ada".into(), amount: "\"1".into() }, Way::Direct, None);
        let page = page(Some("\"><script>:80"), places(), &ledger);
        assert!(page.contains("&lt;b&gt;Ada") && !page.contains("<b>Ada") && !page.contains("<script>:"));
        let one = ledger.finish("INV-1001").expect("it was begun");
        assert!(invoice(&one).contains("&quot;1"));
    }

    #[test]
    fn every_form_has_an_address_of_its_own_and_a_key_where_no_script_makes_it() {
        let page = page(Some("localhost:9"), places(), &Ledger::default());
        for address in [
            "http://localhost:8080/form/guard",
            "http://localhost:8080/form/proxy",
            "http://localhost:8081/form/backend",
        ] {
            assert!(
                page.contains(&format!(
                    "<iframe id=\"{}\" src=\"{address}\"",
                    address.rsplit('/').next().expect("a name")
                )),
                "{address}"
            );
        }
        assert!(!page.contains("{proxy") && !page.contains("{backend") && !page.contains("{guard"));
        let guarded = form(Way::Guard);
        assert!(guarded.contains(" data-onlyonce>") && !guarded.contains("idempotency_key"), "{guarded}");
        assert_ne!(form(Way::Onlyonce), form(Way::Onlyonce));
        assert!(form(Way::Direct).contains("name=\"idempotency_key\" value=\"form-"));
    }

    #[test]
    fn duplicates_are_marked() {
        let ledger = Ledger::default();
        let begin =
            |way| ledger.begin(InvoiceOrder { customer: "Ada".into(), amount: "1".into() }, way, Some("k".into()));
        begin(Way::Onlyonce);
        (0..3).for_each(|_| {
            begin(Way::Direct);
        });
        let page = page(None, places(), &ledger);
        assert!(page.contains("<li class=\"many\"><strong>3 invoices for one key"));
        assert!(page.contains("<li class=\"one\"><strong>1 invoice for one key"));
    }

    #[test]
    fn the_name_in_host_may_be_an_address() {
        assert_eq!(name("localhost:8080"), Some("localhost"));
        assert_eq!(name("[::1]:8080"), Some("[::1]"));
        assert_eq!(name("[::1]"), Some("[::1]"));
        assert_eq!(name(""), None);
    }
}
