//! The plan in words: what is sent in a case, and what differs from the request that was given.

use super::case::{Act, LONG, Manner, SentKey, Variation, VerifyCase};
use super::counter::EffectCounter;
use super::request::VerifyRequest;

/// How many of the requests differ from the one that was given, and in what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestDifference {
    /// So many, at most.
    pub requests: usize,
    /// In words, as `with two keys`.
    pub what: String,
}

impl VerifyRequest {
    /// The most requests that are sent, without those that only count.
    pub fn most_requests(&self) -> usize {
        self.sent_cases().map(VerifyCase::most_requests).sum::<usize>() + self.most_repetitions()
    }

    /// How many of them are sent only where a count alone tells of a doubled effect.
    pub fn most_repetitions(&self) -> usize {
        let is_counted = self.count.is_some();
        let repeated = self.sent_cases().filter(|case| is_counted && case.is_tried_twice());
        repeated.map(VerifyCase::most_requests).sum()
    }

    /// The most requests that counting takes.
    pub fn most_counts(&self) -> usize {
        let counted = self.sent_cases().filter(|case| case.is_counted());
        let twice = self.sent_cases().filter(|case| case.is_tried_twice());
        EffectCounter::most_requests(counted.count() + twice.count())
    }

    /// What is sent besides the request that was given with a random key.
    pub fn differences(&self) -> Vec<RequestDifference> {
        let mut all: Vec<RequestDifference> = Vec::new();
        let acts = self.sent_cases().flat_map(|case| {
            let times = if case.is_tried_twice() && self.count.is_some() { 2 } else { 1 };
            case.acts().into_iter().map(move |act| (act, times))
        });
        for (act, times) in acts {
            let requests = act.manner.most_requests() * times;
            let varied = self.varied(act.variation);
            for what in [varied, keyed(act.key).map(str::to_owned), left(act).map(str::to_owned)].into_iter().flatten()
            {
                match all.iter_mut().find(|difference| difference.what == what) {
                    Some(known) => known.requests += requests,
                    None => all.push(RequestDifference { requests, what }),
                }
            }
        }
        all
    }

    fn sent_cases(&self) -> impl Iterator<Item = VerifyCase> {
        VerifyCase::ALL.into_iter().filter(|case| self.why_not(*case).is_none())
    }

    fn varied(&self, variation: Variation) -> Option<String> {
        match variation {
            Variation::AsGiven => None,
            Variation::Body => Some(format!("with {}", self.other_body_in_words())),
            Variation::Target => Some(format!("to another target: {}", self.other_target_in_words())),
            Variation::Caller => {
                let names: Vec<&str> = self.other_caller.iter().map(|(name, _)| name.as_str()).collect();
                Some(format!("as another caller, with another {}", names.join(", ")))
            }
        }
    }

    fn other_body_in_words(&self) -> String {
        match (&self.other_body, self.altered()) {
            (Some(body), _) => format!("another body, of --other-data ({} bytes)", body.len()),
            (None, Some(altered)) => format!("another body: another value of {}", altered.what),
            (None, None) => "another body".to_owned(),
        }
    }

    fn other_target_in_words(&self) -> String {
        let target = self.target_of(Variation::Target);
        match (&self.other_target, target.query()) {
            (None, _) => "?onlyonce-verify=1 is added".to_owned(),
            (Some(_), None) => target.path().to_owned(),
            (Some(_), Some(_)) => format!("{}?...", target.path()),
        }
    }
}

const _: () = assert!(LONG == 1024, "the words below say so");

fn keyed(key: SentKey) -> Option<&'static str> {
    match key {
        SentKey::First | SentKey::Second | SentKey::Fresh | SentKey::Other => None,
        SentKey::Absent => Some("without a key"),
        SentKey::Requoted => Some("with quotes around the key, or without them if it needs them"),
        SentKey::UpperCase => Some("with the key in upper case"),
        SentKey::Two => Some("with two keys"),
        SentKey::Empty => Some("with an empty key"),
        SentKey::Long(_) => Some("with a key of 1024 characters"),
    }
}

fn left(act: Act) -> Option<&'static str> {
    (act.manner == Manner::GiveUp).then_some("cut off before the answer")
}

/// What is sent in a case, in words.
pub(super) fn sent(case: VerifyCase, request: &VerifyRequest) -> String {
    match case {
        VerifyCase::Control => "two new keys, one request each".to_owned(),
        VerifyCase::Repeat => "the first of them again, after its answer".to_owned(),
        VerifyCase::ReplayStatus | VerifyCase::ReplayBody | VerifyCase::ReplayLocation | VerifyCase::ReplayHeaders => {
            "nothing new: the answer to that".to_owned()
        }
        VerifyCase::Concurrent => "a new key, ten times at once".to_owned(),
        VerifyCase::LostAnswer => "a new key, cut before the answer; again, once that must have ended".to_owned(),
        VerifyCase::ClientTimeout => "a new key, given up while it runs; again, at once".to_owned(),
        VerifyCase::OtherBody => format!("the first key with {}", request.other_body_in_words()),
        VerifyCase::OtherTarget => {
            format!("the second and the first key to another target: {}", request.other_target_in_words())
        }
        VerifyCase::OtherCaller => "the second and the first key, with what --other-caller says".to_owned(),
        VerifyCase::NoKey => "one request without a key".to_owned(),
        VerifyCase::QuotedKey => "the first key, with quotes around it, or without them".to_owned(),
        VerifyCase::KeyCase => "the first key in upper case".to_owned(),
        VerifyCase::TwoKeys => "one request with two new keys".to_owned(),
        VerifyCase::EmptyKey => "an empty key, twice".to_owned(),
        VerifyCase::LongKey => "1024 characters, twice; then with another last character".to_owned(),
        VerifyCase::ConflictAnswer | VerifyCase::ReuseAnswer => "nothing new: the answers above".to_owned(),
    }
}
