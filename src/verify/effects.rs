//! Effects: which one an answer names, and how often something happened.
//!
//! Answers are counted from below only: two that name two things prove two effects, and one that is named does not prove
//! that there was no other. The count that the API itself gives is exact.

use std::collections::BTreeSet;

use http::header::LOCATION;
use serde_json::Value;

use super::answer::{AnswerClass, ApiAnswer, ClientOutcome};

/// Where the answers name what was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NameSource {
    /// In `Location`.
    Location,
    /// In this member of their JSON, or of the object in its `data`.
    Member(String),
    /// In this one, by its name an identifier of something. Two of them may be of two attempts at one effect.
    AnyIdentifier(String),
}

/// What is known of the effects of some requests that had one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// By how much the API's own count rose, where it is counted.
    pub(super) counted: Option<u64>,
    /// The different things that the answers name, without those that say that they are replays.
    pub(super) named: BTreeSet<String>,
    /// What those name that say that they are replays.
    pub(super) named_by_replays: BTreeSet<String>,
    /// Whether two names are two effects.
    pub(super) are_names_certain: bool,
    /// Successful answers that name nothing.
    pub(super) nameless: usize,
    /// Answers that name nothing, and say that they are replays.
    pub(super) replayed: usize,
    /// Requests that may have had an effect of which no answer tells.
    pub(super) unseen: usize,
}

/// How often it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occurrences {
    /// Not more than once, as far as this tells.
    AtMostOnce(Basis),
    /// So often.
    Often(u64, Basis),
    /// It cannot be told.
    NotKnown(Unclear),
}

/// What it is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// The API's own count.
    Count,
    /// What the answers name.
    Names,
    /// The answer that says of itself that it is a replay.
    Word,
    /// Content that was another one for another key.
    Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unclear {
    /// No answer tells of some of the requests.
    Unseen,
    /// The answers do not name what was created.
    Nameless,
    /// An answer says that it was done, and the count has not risen.
    Count,
    /// The answers name different things, and the count, or their own word, says that it is one.
    Contradicted,
    /// The answers name different things, which may be of the answers and not of the effects.
    Guessed,
}

/// How a later answer relates to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerRelation {
    /// It tells of the same effect.
    Same(Basis),
    /// It tells of another effect.
    Other,
    /// It succeeded, and of what it tells is not clear.
    Unclear,
    /// It did not succeed.
    NoSuccess(AnswerClass),
}

/// Names in answers that are new for each request, or for each client.
const NOT_OF_EFFECTS: [&str; 8] = ["request", "trace", "correlation", "span", "session", "customer", "user", "tenant"];

impl NameSource {
    /// The first place that names two effects differently; `path` is that of the request.
    pub(super) fn of(first: &ApiAnswer, other: &ApiAnswer, path: &str) -> Option<Self> {
        let tells = |source: &Self| {
            let (first, other) = (source.name(first), source.name(other));
            first.is_some() && other.is_some() && first != other
        };
        std::iter::once(Self::Location).chain(members(first, path)).find(tells)
    }

    /// What the answer names.
    pub(super) fn name(&self, answer: &ApiAnswer) -> Option<String> {
        match self {
            // A query may hold a signature, which is new in each answer.
            Self::Location => {
                let location = answer.headers.get(LOCATION)?.to_str().ok()?;
                location.split(['?', '#']).next().map(str::to_owned)
            }
            Self::Member(member) | Self::AnyIdentifier(member) => match object(&json(answer)?)?.get(member)? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
            },
        }
    }
}

fn json(answer: &ApiAnswer) -> Option<Value> {
    serde_json::from_slice(&answer.body).ok()
}

/// The object that was created: the whole, or what is in its `data`.
fn object(json: &Value) -> Option<&serde_json::Map<String, Value>> {
    let whole = json.as_object()?;
    Some(whole.get("data").and_then(Value::as_object).unwrap_or(whole))
}

/// Members that may hold an identifier, the likeliest first.
fn members(answer: &ApiAnswer, path: &str) -> Vec<NameSource> {
    let Some(json) = json(answer) else { return Vec::new() };
    let Some(object) = object(&json) else { return Vec::new() };
    // The last word of /v1/orders is in order, order_id and orderNumber.
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let resource = last.strip_suffix('s').unwrap_or(&last);
    const ANY: u8 = 3;
    let rank = |member: &str| {
        let plain = member.to_ascii_lowercase().replace(['_', '-'], "");
        let of_resource = plain.strip_prefix(resource).filter(|_| !resource.is_empty());
        if matches!(of_resource, Some("" | "id" | "uuid" | "number" | "no" | "ref" | "reference")) {
            return Some(1);
        }
        let is_of_others = |word: &&str| plain.starts_with(*word) || plain.ends_with(&format!("{word}id"));
        match plain.as_str() {
            "id" | "uuid" => Some(0),
            _ if NOT_OF_EFFECTS.iter().any(is_of_others) => None,
            "number" | "reference" | "ref" => Some(2),
            _ if member.ends_with("_id") || member.ends_with("Id") => Some(ANY),
            _ => None,
        }
    };
    let mut ranked: Vec<(u8, &String)> = object.keys().filter_map(|name| Some((rank(name)?, name))).collect();
    ranked.sort();
    let source = |(rank, name): (u8, &String)| match rank {
        ANY => NameSource::AnyIdentifier(name.clone()),
        _ => NameSource::Member(name.clone()),
    };
    ranked.into_iter().map(source).collect()
}

/// What two requests with two keys have shown: what all answers are compared with.
#[derive(Debug, Clone)]
pub(super) struct Baseline {
    /// The answer to the first key.
    pub(super) first: ApiAnswer,
    /// The answer to the second key.
    pub(super) second: ApiAnswer,
    /// Where answers name effects.
    pub(super) source: Option<NameSource>,
    /// Whether the content of the second answer was another one.
    pub(super) content_differs: bool,
}

impl Baseline {
    pub(super) fn new(first: ApiAnswer, second: ApiAnswer, path: &str) -> Self {
        let source = NameSource::of(&first, &second, path);
        let content_differs = first.body != second.body;
        Self { first, second, source, content_differs }
    }

    /// How this answer relates to the first one.
    pub(super) fn relate(&self, later: &ApiAnswer) -> AnswerRelation {
        self.relation_to_control(&self.first, later)
    }

    /// How this answer relates to that to the second key.
    pub(super) fn relate_to_second(&self, later: &ApiAnswer) -> AnswerRelation {
        self.relation_to_control(&self.second, later)
    }

    /// Content that was another one for the other key is a name, too. Of two answers that came at about the same time it is
    /// none: they may hold the time.
    fn relation_to_control(&self, control: &ApiAnswer, later: &ApiAnswer) -> AnswerRelation {
        match self.relation(control, later) {
            AnswerRelation::Unclear if self.content_differs && control.body == later.body => {
                AnswerRelation::Same(Basis::Content)
            }
            relation => relation,
        }
    }

    /// Whether this answer is not that one: by what they name, or, without names, by their content.
    pub(super) fn are_apart(&self, one: &ApiAnswer, other: &ApiAnswer) -> bool {
        match (self.name(one), self.name(other)) {
            (Some(one), Some(other)) => one != other,
            (None, _) | (_, None) => one.body != other.body || one.says_replayed() != other.says_replayed(),
        }
    }

    fn name(&self, answer: &ApiAnswer) -> Option<String> {
        self.source.as_ref()?.name(answer)
    }

    /// Whether two names are two effects.
    fn are_names_certain(&self) -> bool {
        !matches!(self.source, Some(NameSource::AnyIdentifier(_)))
    }

    /// How a later answer relates to an earlier one.
    pub(super) fn relation(&self, earlier: &ApiAnswer, later: &ApiAnswer) -> AnswerRelation {
        match later.class() {
            AnswerClass::Success => {}
            class => return AnswerRelation::NoSuccess(class),
        }
        match (self.name(earlier), self.name(later)) {
            (Some(earlier), Some(later)) if earlier == later => AnswerRelation::Same(Basis::Names),
            (Some(_), Some(_)) if self.are_names_certain() => AnswerRelation::Other,
            (Some(_), Some(_)) => AnswerRelation::Unclear,
            (None, _) | (_, None) if later.says_replayed() => AnswerRelation::Same(Basis::Word),
            (None, _) | (_, None) => AnswerRelation::Unclear,
        }
    }

    /// What these outcomes tell of the effects of their requests, which had one key.
    pub(super) fn effects<'a>(
        &self,
        outcomes: impl IntoIterator<Item = &'a ClientOutcome>,
        counted: Option<u64>,
    ) -> Effects {
        let are_names_certain = self.are_names_certain();
        let mut effects = Effects { counted, are_names_certain, ..Effects::default() };
        let mut successes = Vec::new();
        for outcome in outcomes {
            match outcome.evidence().map(|answer| (answer.class(), answer)) {
                Some((AnswerClass::Success, answer)) => successes.push(answer),
                None | Some((AnswerClass::Failure | AnswerClass::Redirected, _)) => effects.unseen += 1,
                Some((AnswerClass::Refused | AnswerClass::Denied | AnswerClass::Missing | AnswerClass::Busy, _)) => {}
            }
        }
        // The first answer's content again tells of its effect.
        let mut is_first_there = false;
        for answer in successes {
            let is_first = self.content_differs && answer.body == self.first.body;
            match self.name(answer) {
                Some(name) if answer.says_replayed() => effects.named_by_replays.insert(name),
                Some(name) => effects.named.insert(name),
                None => {
                    if answer.says_replayed() {
                        effects.replayed += 1;
                    } else if !(is_first && is_first_there) {
                        effects.nameless += 1;
                    }
                    false
                }
            };
            is_first_there |= is_first;
        }
        effects
    }
}

impl Effects {
    /// How often it happened. `is_replay` says that the last answer calls itself a replay: that of a request of which no
    /// other answer tells.
    pub(super) fn occurrences(&self, is_replay: bool) -> Occurrences {
        let named = u64::try_from(self.named.len()).unwrap_or(u64::MAX);
        let names = self.named.union(&self.named_by_replays).count();
        let told = names + self.nameless;
        match self.counted {
            Some(count) if count > 1 => Occurrences::Often(count, Basis::Count),
            None if named > 1 && self.are_names_certain => Occurrences::Often(named, Basis::Names),
            None if names > 1 && !self.are_names_certain => Occurrences::NotKnown(Unclear::Guessed),
            Some(_) if names > 1 && !self.are_names_certain => Occurrences::AtMostOnce(Basis::Count),
            Some(_) | None if names > 1 => Occurrences::NotKnown(Unclear::Contradicted),
            Some(0) if told + self.replayed > 0 => Occurrences::NotKnown(Unclear::Count),
            Some(_) => Occurrences::AtMostOnce(Basis::Count),
            None if told > 1 => Occurrences::NotKnown(Unclear::Nameless),
            None if self.unseen == 0 => Occurrences::AtMostOnce(Basis::Names),
            // One may have had an effect, and no other has.
            None if self.unseen == 1 && told == 0 => Occurrences::AtMostOnce(Basis::Names),
            None if self.unseen == 1 && is_replay => Occurrences::AtMostOnce(Basis::Word),
            None => Occurrences::NotKnown(Unclear::Unseen),
        }
    }
}
