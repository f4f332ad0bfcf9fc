//! Reading a parsed table key by key, so that everything wrong with it is found in one go.

use std::cell::RefCell;

use toml::de::DeTable;

use super::item::Item;
use super::report::{Report, Span, header};
use super::setting::Setting;

/// One table of the file.
pub(super) struct Section<'a> {
    /// As in its header; empty for the top of the file.
    name: &'static str,
    table: Option<&'a DeTable<'a>>,
    span: Option<Span>,
    report: &'a Report<'a>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The top of the file.
    pub(super) fn root(table: &'a DeTable<'a>, report: &'a Report<'a>) -> Self {
        Self { name: "", table: Some(table), span: None, report, asked: RefCell::default() }
    }

    /// The table `[name]`; one that is absent reads as empty.
    pub(super) fn section(&self, name: &'static str) -> Section<'a> {
        self.report.know(self.name, name);
        let item = self.item(name);
        let table = item.as_ref().and_then(|item| item.table(&format!("write it as a table: [{name}]")));
        let span = item.map(|item| item.span());
        Section { name, table, span, report: self.report, asked: RefCell::default() }
    }

    /// The tables `[[name]]`, of which there must be one; `advice` shows it.
    pub(super) fn sections(&self, name: &'static str, advice: &str) -> Vec<Section<'a>> {
        self.report.know(self.name, name);
        let brackets = format!("write each one under a header in double brackets: [[{name}]]");
        let item = self.item(name);
        let elements = match &item {
            None => Some(Vec::new()),
            Some(item) => {
                item.elements().or_else(|| item.refuse(format!("`{name}` must be a list of tables"), brackets.clone()))
            }
        };
        let Some(elements) = elements else { return Vec::new() };
        if elements.is_empty() {
            self.report.add(item.map(|item| item.span()), format!("there is no [[{name}]]"), advice);
        }
        let section = |item: Item<'a>| {
            let table = Some(item.table(&brackets)?);
            Some(Section { name, table, span: Some(item.span()), report: self.report, asked: RefCell::default() })
        };
        elements.into_iter().filter_map(section).collect()
    }

    /// Where the table begins, unless it is absent.
    pub(super) fn span(&self) -> Option<Span> {
        self.span.clone()
    }

    /// Reads `key` with `parse`, which reports what is wrong and then gives `None`.
    pub(super) fn read<T>(&self, key: &'static str, parse: impl FnOnce(&Item<'a>) -> Option<T>) -> Setting<T> {
        self.report.know(self.name, key);
        match self.item(key) {
            None => Setting::Absent,
            Some(item) => match parse(&item) {
                Some(value) => Setting::Given(value, item.span()),
                None => Setting::Wrong(item.span()),
            },
        }
    }

    /// The same for a key that must be there; `advice` says what to write.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        advice: &str,
        parse: impl FnOnce(&Item<'a>) -> Option<T>,
    ) -> Setting<T> {
        let setting = self.read(key, parse);
        let is_table = self.table.is_some() || self.span.is_none();
        if matches!(setting, Setting::Absent) && is_table {
            self.report.add(self.span(), format!("{} is missing", self.path(key)), advice);
        }
        setting
    }

    /// A key that is planned: refused if it is there. `instead` says what can be done today.
    pub(super) fn later(&self, key: &'static str, instead: &str) {
        if let Some(item) = self.item(key) {
            let subject = if self.name.is_empty() { header(key) } else { self.path(key) };
            item.not_built::<()>(&format!("{subject} is"), instead);
        }
    }

    /// A key of which only the default is built.
    pub(super) fn only<T: PartialEq>(
        &self,
        key: &'static str,
        default: &T,
        instead: &str,
        parse: impl FnOnce(&Item<'a>) -> Option<T>,
    ) {
        if let Some(item) = self.item(key)
            && parse(&item).is_some_and(|value| value != *default)
        {
            item.not_built::<()>(&format!("{} is", self.path(key)), instead);
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.into_inner();
        let keys = self.table.iter().flat_map(|table| table.keys());
        for key in keys.filter(|key| !asked.contains(&key.get_ref().as_ref())) {
            self.report.stray(self.name, key.get_ref().to_string(), key.span());
        }
    }

    fn item(&self, key: &'static str) -> Option<Item<'a>> {
        self.asked.borrow_mut().push(key);
        let value = self.table?.get(key)?;
        Some(Item::new(self.path(key), value, self.report))
    }

    /// The key as messages name it. A route's keys go by themselves: they may stand in `[defaults]` too.
    fn path(&self, key: &str) -> String {
        match self.name {
            "" | "route" | "defaults" => key.to_owned(),
            name => format!("{name}.{key}"),
        }
    }
}
