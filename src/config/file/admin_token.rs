//! `admin.token`, and `[admin.tokens]`.

use super::super::{AdminRight, AdminToken, Secret, UNNAMED_TOKEN};
use super::item::Item;
use super::report::{ByteRange, FileReport};
use super::section::Section;
use crate::rule::BY_PROBE;

/// `[admin.tokens]`: each token and where it is; `None` if one of them is wrong.
pub(super) struct NamedTokens(Option<Vec<(AdminToken, ByteRange)>>);

const EXAMPLE: &str = "alice = { token = \"env:ALICE_TOKEN\", may = \"read\" }";
const LONGEST_NAME: usize = 64;
/// As of the other secrets: what is shorter can be guessed.
const SHORTEST_TOKEN: usize = 16;

impl NamedTokens {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self(section.named_tables("tokens", EXAMPLE, named))
    }

    /// The audit tells by the token who did what.
    pub(super) fn check(&self, unnamed: Option<&Secret>, report: &FileReport<'_>) {
        let mut seen: Vec<(&str, &Secret)> = unnamed.map(|token| (UNNAMED_TOKEN, token)).into_iter().collect();
        for (AdminToken { name, token, .. }, span) in self.0.iter().flatten() {
            if let Some((other, _)) = seen.iter().find(|(_, other)| *other == token) {
                report.add(
                    Some(span.clone()),
                    format!("{name} and {other} have the same token"),
                    "give each its own, so that the audit can tell them apart: openssl rand -hex 32",
                );
            }
            seen.push((name, token));
        }
    }

    /// All tokens, with `admin.token`.
    pub(super) fn with(&self, unnamed: Option<Secret>) -> Option<Vec<AdminToken>> {
        let name = UNNAMED_TOKEN.to_owned();
        let unnamed = unnamed.map(|token| AdminToken { name, token, may: AdminRight::Change });
        let named = self.0.as_ref()?.iter().map(|(token, _)| token.clone());
        Some(unnamed.into_iter().chain(named).collect())
    }
}

/// `[admin.tokens.NAME]`
fn named(name: Option<&str>, section: Section<'_>) -> Option<(AdminToken, ByteRange)> {
    let report = section.report();
    let token = section.required("token", "make one: openssl rand -hex 32", secret);
    let may = section.read("may", Item::word).or(AdminRight::Read);
    let span = section.span();
    section.finish();
    let (name, span) = name.zip(span)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    // What the audit calls others. The third one, `this machine`, is not plain.
    let is_taken = [UNNAMED_TOKEN, BY_PROBE].iter().any(|other| name.eq_ignore_ascii_case(other));
    if is_taken || !(1..=LONGEST_NAME).contains(&name.len()) || !name.chars().all(is_plain) {
        let message = format!("a token of [admin.tokens] cannot be named {name:?}");
        let advice = format!(
            "1 to {LONGEST_NAME} letters, digits and . _ - @ are right, but not {UNNAMED_TOKEN} and not {BY_PROBE}: the \
             audit of a record tells by this name who did what"
        );
        report.add(Some(span), message, advice);
        return None;
    }
    Some((AdminToken { name: name.to_owned(), token: token.take()?, may: may.take()? }, span))
}

pub(super) fn secret(item: &Item<'_>) -> Option<Secret> {
    let text = item.text()?;
    if text.value.is_empty() || !text.value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return item.refuse(
            format!("{} is empty, or has characters that cannot stand in a header", item.name()),
            "ASCII letters, digits and punctuation without spaces are right: openssl rand -hex 32",
        );
    }
    if text.value.len() < SHORTEST_TOKEN {
        let characters = if text.value.len() == 1 { "character" } else { "characters" };
        return item.refuse(
            format!("{} has only {} {characters}", item.name(), text.value.len()),
            format!("it is at least {SHORTEST_TOKEN} characters that nobody can guess: openssl rand -hex 32"),
        );
    }
    Some(Secret::new(text.value))
}
