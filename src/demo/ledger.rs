//! The invoices that the demo's backend has created.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct InvoiceOrder {
    pub(super) customer: String,
    pub(super) amount: String,
}

/// How a request reached the backend. Recorded for the page, without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Way {
    /// Through onlyonce, from the form with the form guard.
    Guard,
    Onlyonce,
    Direct,
}

/// One line of the ledger.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Invoice {
    /// `INV-1001`
    pub(super) number: String,
    #[serde(flatten)]
    pub(super) order: InvoiceOrder,
    #[serde(rename = "via")]
    pub(super) way: Way,
    /// The client's key, if any. Recorded for the page, without effect.
    pub(super) key: Option<String>,
    /// Whether it is still being created.
    #[serde(skip)]
    pub(super) at_work: bool,
}

/// All invoices, in the order of their requests.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Vec<Invoice>>);

/// The number before the first.
const NUMBERS_FROM: usize = 1000;

impl Ledger {
    /// Begins an invoice; [`finish`](Self::finish) creates it.
    pub(super) fn begin(&self, order: InvoiceOrder, way: Way, key: Option<String>) -> String {
        let mut invoices = self.lock();
        let number = format!("INV-{}", NUMBERS_FROM + invoices.len() + 1);
        invoices.push(Invoice { number: number.clone(), order, way, key, at_work: true });
        number
    }

    /// Marks the invoice as created.
    pub(super) fn finish(&self, number: &str) -> Option<Invoice> {
        let mut invoices = self.lock();
        let invoice = invoices.iter_mut().find(|invoice| invoice.number == number)?;
        invoice.at_work = false;
        Some(invoice.clone())
    }

    /// The invoice of this number, once it is created.
    pub(super) fn created(&self, number: &str) -> Option<Invoice> {
        self.lock().iter().find(|invoice| invoice.number == number && !invoice.at_work).cloned()
    }

    /// All created invoices as JSON, one on each line.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        let invoices = self.lock();
        let lines = invoices.iter().filter(|invoice| !invoice.at_work).map(serde_json::to_string);
        Ok(format!("[{}]", lines.collect::<Result<Vec<_>, _>>()?.join(",\n ")))
    }

    /// The invoices of one way, grouped by key, the latest first. An invoice without a key is a separate group.
    pub(super) fn intents(&self, way: Way) -> Vec<Vec<Invoice>> {
        let mut intents: Vec<Vec<Invoice>> = Vec::new();
        for invoice in self.lock().iter().filter(|invoice| invoice.way == way) {
            let same = |intent: &&mut Vec<Invoice>| invoice.key.is_some() && intent[0].key == invoice.key;
            match intents.iter_mut().find(same) {
                Some(intent) => intent.push(invoice.clone()),
                None => intents.push(vec![invoice.clone()]),
            }
        }
        intents.reverse();
        intents
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Invoice>> {
        // Each change is one assignment or push, so that a panic leaves the list consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> InvoiceOrder {
        InvoiceOrder { customer: "Ada".into(), amount: "1".into() }
    }

    #[test]
    fn intents_hold_what_has_the_same_key_and_came_the_same_way() {
        let ledger = Ledger::default();
        for (way, key) in [
            (Way::Direct, Some("a")),
            (Way::Onlyonce, Some("a")),
            (Way::Direct, None),
            (Way::Direct, Some("a")),
            (Way::Direct, None),
        ] {
            ledger.begin(order(), way, key.map(str::to_owned));
        }
        let numbers = |way| -> Vec<Vec<String>> {
            let intents = ledger.intents(way);
            intents.iter().map(|intent| intent.iter().map(|invoice| invoice.number.clone()).collect()).collect()
        };
        assert_eq!(numbers(Way::Direct), [vec!["INV-1005"], vec!["INV-1003"], vec!["INV-1001", "INV-1004"]]);
        assert_eq!(numbers(Way::Onlyonce), [["INV-1002"]]);
    }

    #[test]
    fn an_invoice_is_there_once_it_is_created() {
        let ledger = Ledger::default();
        let number = ledger.begin(order(), Way::Direct, None);
        assert!(ledger.created(&number).is_none());
        assert_eq!(ledger.json().expect("JSON"), "[]");
        assert!(ledger.finish(&number).is_some_and(|invoice| !invoice.at_work));
        assert!(ledger.created(&number).is_some());
        assert!(ledger.json().expect("JSON").contains("\"INV-1001\""));
    }
}
