//! Reads a parsed table key by key, so that all its problems are found.

use std::cell::RefCell;

use toml::de::DeTable;

use super::item::Item;
use super::report::{ByteRange, FileReport, KnownKey};
use super::setting::Setting;
use super::shape::Shape;

/// One table of the file.
///
/// Each key that is read is registered, for the advice on misspelt keys and for the schema. For a key that is not in the
/// file, its parser tells the shapes that it accepts ([`Item::shapes`]), so that reading an empty file describes all keys.
pub(super) struct Section<'a> {
    /// As in its header, `server.tls`; empty for the top of the file.
    name: String,
    /// The table that its keys are known of: as its name, or `admin.tokens.*` where the file gives the name.
    known_as: String,
    table: Option<&'a DeTable<'a>>,
    span: Option<ByteRange>,
    report: &'a FileReport<'a>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The top of the file.
    pub(super) fn root(table: &'a DeTable<'a>, report: &'a FileReport<'a>) -> Self {
        let (name, known_as) = (String::new(), String::new());
        Self { name, known_as, table: Some(table), span: None, report, asked: RefCell::default() }
    }

    /// The table `[key]`; one that is absent reads as empty.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        self.know(key, false, vec![Shape::Table]);
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        let item = self.item(key);
        let table = item.as_ref().and_then(|item| item.table(&format!("write it as a table: [{name}]")));
        let span = item.map(|item| item.span());
        Section { known_as: name.clone(), name, table, span, report: self.report, asked: RefCell::default() }
    }

    /// The tables `[key.NAME]`, each read with `read`; `None` if one of them is wrong. `example` is one of them, inline.
    /// Where there are none, `read` is asked for its keys, without a name.
    pub(super) fn named_tables<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl Fn(Option<&str>, Section<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.know(key, false, vec![Shape::NamedTables]);
        let (path, report) = (self.path(key), self.report);
        let known_as = format!("{path}.*");
        let section = |name, table, span| {
            let (known_as, span) = (known_as.clone(), Some(span));
            Section { name, known_as, table, span, report, asked: RefCell::default() }
        };
        let Some(item) = self.item(key) else {
            read(None, section(known_as.clone(), None, 0..0));
            return Some(Vec::new());
        };
        let advice = format!("write one table for each name: [{path}.NAME]\nor inline:\n  [{path}]\n  {example}");
        let mut all = Some(Vec::new());
        for (name, value) in item.table(&advice)? {
            let name = name.get_ref();
            let item = Item::new(format!("{path}.{name}"), value, report);
            let read = item
                .table(&advice)
                .and_then(|table| read(Some(name), section(format!("{path}.{name}"), Some(table), item.span())));
            all = all.zip(read).map(|(mut all, read)| {
                all.push(read);
                all
            });
        }
        all
    }

    /// The tables `[[name]]`, at least one. `advice` is an example.
    pub(super) fn sections(&self, name: &'static str, advice: &str) -> Vec<Section<'a>> {
        self.know(name, true, vec![Shape::Tables]);
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
            let (name, known_as, span) = (name.to_owned(), name.to_owned(), Some(item.span()));
            Some(Section { name, known_as, table, span, report: self.report, asked: RefCell::default() })
        };
        elements.into_iter().filter_map(section).collect()
    }

    /// Where the table begins, unless it is absent.
    pub(super) fn span(&self) -> Option<ByteRange> {
        self.span.clone()
    }

    /// Reads `key` with `parse`, which reports a problem and returns `None`.
    pub(super) fn read<T>(&self, key: &'static str, parse: impl FnOnce(&Item<'a>) -> Option<T>) -> Setting<T> {
        self.look_up(key, false, parse)
    }

    /// The same for a required key. `advice` is for when it is missing.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        advice: &str,
        parse: impl FnOnce(&Item<'a>) -> Option<T>,
    ) -> Setting<T> {
        let setting = self.look_up(key, true, parse);
        let is_table = self.table.is_some() || self.span.is_none();
        if matches!(setting, Setting::Absent) && is_table {
            self.report.add(self.span(), format!("{} is missing", self.path(key)), advice);
        }
        setting
    }

    fn look_up<T>(&self, key: &'static str, required: bool, parse: impl FnOnce(&Item<'a>) -> Option<T>) -> Setting<T> {
        let Some(item) = self.item(key) else {
            self.know(key, required, Item::shapes(self.report, parse));
            return Setting::Absent;
        };
        self.know(key, required, Vec::new());
        match parse(&item) {
            Some(value) => Setting::Given(value, item.span()),
            None => Setting::Wrong(item.span()),
        }
    }

    /// For problems of several keys together.
    pub(super) fn report(&self) -> &'a FileReport<'a> {
        self.report
    }

    /// Registers the keys that no reader asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.into_inner();
        let all = self.table.iter().flat_map(|table| table.iter());
        for (key, value) in all.filter(|(key, _)| !asked.contains(&key.get_ref().as_ref())) {
            self.report.stray(&self.name, &self.known_as, key.get_ref().to_string(), key.span(), value.span());
        }
    }

    fn know(&self, key: &'static str, required: bool, shapes: Vec<Shape>) {
        self.report.know(KnownKey { table: self.known_as.clone(), key, required, shapes });
    }

    fn item(&self, key: &'static str) -> Option<Item<'a>> {
        self.asked.borrow_mut().push(key);
        let value = self.table?.get(key)?;
        Some(Item::new(self.path(key), value, self.report))
    }

    /// The key as messages name it. The keys of a route have no prefix: they may be in `[defaults]` too.
    fn path(&self, key: &str) -> String {
        match self.name.as_str() {
            "" | "route" | "defaults" => key.to_owned(),
            name => format!("{}.{key}", name.strip_prefix("route.").unwrap_or(name)),
        }
    }
}
