//! Effects: which one an answer names, and how often something happened.
//!
//! Answers are counted from below only: two that name two things prove two effects, and one that is named does not prove
//! that there was no other. The count that the API itself gives is exact.

use std::collections::BTreeSet;

use http::StatusCode;
use http::header::LOCATION;
use serde_json::Value;

use super::answer::{AnswerClass, ApiAnswer, ClientOutcome};
use super::changing::ChangingMembers;

/// Where the answers name what was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NameSource {
    /// In `Location`.
    Location,
    /// In that of a 202, which may be where one attempt can be followed (RFC 9110, 15.3.3).
    AnyLocation,
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
    /// The places that name two effects differently, the likeliest first; `path` is that of the request.
    pub(super) fn all(first: &ApiAnswer, other: &ApiAnswer, path: &str) -> Vec<Self> {
        let tells = |source: &Self| {
            let (first, other) = (source.name(first), source.name(other));
            first.is_some() && other.is_some() && first != other
        };
        let is_accepted = first.status == StatusCode::ACCEPTED || other.status == StatusCode::ACCEPTED;
        let location = if is_accepted { Self::AnyLocation } else { Self::Location };
        let (last, leading) = if is_accepted { (Some(location), None) } else { (None, Some(location)) };
        leading.into_iter().chain(members(first, path)).chain(last).filter(tells).collect()
    }

    /// Whether two names are two effects.
    fn is_certain(&self) -> bool {
        match self {
            Self::Location | Self::Member(_) => true,
            Self::AnyLocation | Self::AnyIdentifier(_) => false,
        }
    }

    /// What the answer names.
    pub(super) fn name(&self, answer: &ApiAnswer) -> Option<String> {
        match self {
            // A query may hold a signature, which is new in each answer; one answer may have a URL, and one a path.
            Self::Location | Self::AnyLocation => {
                let location = answer.headers.get(LOCATION)?.to_str().ok()?;
                let location = location.split(['?', '#']).next()?;
                let path =
                    location.split_once("://").map_or(location, |(_, url)| url.find('/').map_or("/", |at| &url[at..]));
                Some(path.to_owned())
            }
            Self::Member(member) | Self::AnyIdentifier(member) => match object(&json(answer)?)?.get(member)? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
            },
        }
    }
}

fn name(source: Option<&NameSource>, answer: &ApiAnswer) -> Option<String> {
    source?.name(answer)
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
    /// Where answers name effects, the likeliest first.
    pub(super) sources: Vec<NameSource>,
    /// Whether the content of the second answer was another one.
    content_differs: bool,
    /// What is new in each answer, as far as the repeat of the first request tells.
    changing: ChangingMembers,
    /// That repeat was named otherwise, and had no effect.
    are_names_doubtful: bool,
    /// That repeat was refused with this status.
    refused_repeat: Option<StatusCode>,
}

impl Baseline {
    pub(super) fn new(first: ApiAnswer, second: ApiAnswer, path: &str) -> Self {
        let sources = NameSource::all(&first, &second, path);
        let content_differs = first.body != second.body;
        let changing = ChangingMembers::default();
        Self { first, second, sources, content_differs, changing, are_names_doubtful: false, refused_repeat: None }
    }

    /// What is known once the first request was repeated. `is_contradicted` says that the repeat was named otherwise, and had
    /// no effect.
    pub(super) fn after(&self, repeat: &ApiAnswer, is_contradicted: bool) -> Self {
        let changing = match self.relate(repeat) {
            AnswerRelation::Same(_) => ChangingMembers::between(&self.first, repeat),
            AnswerRelation::Other | AnswerRelation::Unclear | AnswerRelation::NoSuccess(_) => {
                ChangingMembers::default()
            }
        };
        let content_differs = !changing.are_alike(&self.first, &self.second);
        let refused_repeat = (repeat.class() == AnswerClass::Refused).then_some(repeat.status);
        Self { content_differs, changing, are_names_doubtful: is_contradicted, refused_repeat, ..self.clone() }
    }

    /// Content that was seen with other keys, too, is no name: that of one of two servers, for example.
    pub(super) fn but_for_content(self, others: &[&ApiAnswer]) -> Self {
        let is_of_control =
            |other: &&&ApiAnswer| self.are_alike(&self.first, other) || self.are_alike(&self.second, other);
        let content_differs = self.content_differs && !others.iter().any(|other| is_of_control(&other));
        Self { content_differs, ..self }
    }

    /// Whether it is refused as the repeat was: for its key, and not for what else it is.
    pub(super) fn is_refused_as_repeat(&self, answer: &ApiAnswer) -> bool {
        self.refused_repeat == Some(answer.status)
    }

    /// Whether the content of both is the same but for what is new in each answer.
    pub(super) fn are_alike(&self, one: &ApiAnswer, other: &ApiAnswer) -> bool {
        self.changing.are_alike(one, other)
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
            AnswerRelation::Unclear if self.content_differs && self.are_alike(control, later) => {
                AnswerRelation::Same(Basis::Content)
            }
            relation => relation,
        }
    }

    /// Whether this answer is not that one: by what they name, or, without names, by their content.
    pub(super) fn are_apart(&self, one: &ApiAnswer, other: &ApiAnswer) -> bool {
        let source = self.source_of(&[one, other]);
        match (name(source, one), name(source, other)) {
            (Some(one), Some(other)) => one != other,
            (None, _) | (_, None) => !self.are_alike(one, other) || one.says_replayed() != other.says_replayed(),
        }
    }

    /// Where all of these answers have a name, or, if there is no such place, where most do. A replay may lack a field.
    fn source_of(&self, answers: &[&ApiAnswer]) -> Option<&NameSource> {
        let has_all = |source: &&NameSource| answers.iter().all(|answer| source.name(answer).is_some());
        self.sources.iter().find(has_all).or(self.sources.first())
    }

    /// Whether two names are two effects.
    fn are_names_certain(&self, source: Option<&NameSource>) -> bool {
        !self.are_names_doubtful && source.is_none_or(NameSource::is_certain)
    }

    /// How a later answer relates to an earlier one.
    pub(super) fn relation(&self, earlier: &ApiAnswer, later: &ApiAnswer) -> AnswerRelation {
        match later.class() {
            AnswerClass::Success => {}
            class => return AnswerRelation::NoSuccess(class),
        }
        let source = self.source_of(&[earlier, later]);
        match (name(source, earlier), name(source, later)) {
            (Some(earlier), Some(later)) if earlier == later => AnswerRelation::Same(Basis::Names),
            (Some(_), Some(_)) if self.are_names_certain(source) => AnswerRelation::Other,
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
        let mut effects = Effects { counted, ..Effects::default() };
        let mut successes = Vec::new();
        for outcome in outcomes {
            match outcome.evidence().map(|answer| (answer.class(), answer)) {
                Some((AnswerClass::Success, answer)) => successes.push(answer),
                None | Some((AnswerClass::Failure | AnswerClass::Redirected, _)) => effects.unseen += 1,
                Some((AnswerClass::Refused | AnswerClass::Denied | AnswerClass::Missing | AnswerClass::Busy, _)) => {}
            }
        }
        let source = self.source_of(&successes);
        effects.are_names_certain = self.are_names_certain(source);
        // The first answer's content again tells of its effect.
        let mut is_first_there = false;
        for answer in successes {
            let is_first = self.content_differs && self.are_alike(answer, &self.first);
            match name(source, answer) {
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
