//! The members of answers that are new in each of them: a time, a number of the request, a signature. What differs for one
//! caller who repeats a request says nothing of another caller.

use std::collections::BTreeSet;

use serde_json::Value;

use super::answer::ApiAnswer;

/// JSON pointers to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ChangingMembers(BTreeSet<String>);

impl ChangingMembers {
    /// What differs between an answer and that to its repeat. None where there is no JSON, or where all of it differs.
    pub(super) fn between(first: &ApiAnswer, repeat: &ApiAnswer) -> Self {
        let mut changing = BTreeSet::new();
        if let (Some(first), Some(repeat)) = (json(first), json(repeat)) {
            collect(&first, &repeat, String::new(), &mut changing);
        }
        if changing.contains("") { Self::default() } else { Self(changing) }
    }

    /// Whether the content of both is the same but for these members.
    pub(super) fn are_alike(&self, one: &ApiAnswer, other: &ApiAnswer) -> bool {
        if one.body == other.body {
            return true;
        }
        match (json(one), json(other)) {
            (Some(one), Some(other)) => self.without(one) == self.without(other),
            (None, _) | (_, None) => false,
        }
    }

    fn without(&self, mut json: Value) -> Value {
        for pointer in &self.0 {
            let Some((parent, token)) = pointer.rsplit_once('/') else { continue };
            match json.pointer_mut(parent) {
                Some(Value::Object(members)) => {
                    members.remove(&token.replace("~1", "/").replace("~0", "~"));
                }
                Some(Value::Array(elements)) => {
                    if let Some(element) = token.parse().ok().and_then(|at: usize| elements.get_mut(at)) {
                        *element = Value::Null;
                    }
                }
                Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => {}
            }
        }
        json
    }
}

fn json(answer: &ApiAnswer) -> Option<Value> {
    serde_json::from_slice(&answer.body).ok()
}

fn collect(one: &Value, other: &Value, pointer: String, changing: &mut BTreeSet<String>) {
    match (one, other) {
        (Value::Object(ones), Value::Object(others)) => {
            let names: BTreeSet<&String> = ones.keys().chain(others.keys()).collect();
            for name in names {
                let inner = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                match (ones.get(name), others.get(name)) {
                    (Some(one), Some(other)) => collect(one, other, inner, changing),
                    (None, _) | (_, None) => {
                        changing.insert(inner);
                    }
                }
            }
        }
        (Value::Array(ones), Value::Array(others)) if ones.len() == others.len() => {
            for (at, (one, other)) in ones.iter().zip(others).enumerate() {
                collect(one, other, format!("{pointer}/{at}"), changing);
            }
        }
        (one, other) => {
            if one != other {
                changing.insert(pointer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn answer(body: &'static str) -> ApiAnswer {
        ApiAnswer { status: StatusCode::CREATED, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn what_differs_for_the_first_caller_is_left_out_and_nothing_else() {
        let first = answer(r#"{"id":1,"meta":{"at":1,"a/b":1},"list":[{"n":1,"x":2}]}"#);
        let repeat = answer(r#"{"id":1,"meta":{"at":2,"a/b":2},"list":[{"n":9,"x":2}],"again":true}"#);
        let changing = ChangingMembers::between(&first, &repeat);
        let is_alike = |body| changing.are_alike(&first, &answer(body));
        assert!(is_alike(r#"{"id":1,"meta":{"at":7,"a/b":8},"list":[{"n":0,"x":2}]}"#));
        assert!(is_alike(r#"{"id":1,"meta":{},"list":[{"n":0,"x":2}]}"#));
        for other in [
            r#"{"id":2,"meta":{"at":1,"a/b":1},"list":[{"n":1,"x":2}]}"#,
            r#"{"id":1,"meta":{"at":1,"a/b":1},"list":[{"n":1,"x":3}]}"#,
            r#"{"id":1,"meta":{"at":1,"a/b":1},"list":[{"n":1,"x":2}],"caller":"bob"}"#,
            "[1]",
            "text",
        ] {
            assert!(!is_alike(other), "{other}");
        }
        // Where all of it is new, nothing can be compared.
        for (first, repeat) in [("1", "2"), ("a", "b"), ("[1]", "[1,2]"), ("{}", "[]")] {
            let changing = ChangingMembers::between(&answer(first), &answer(repeat));
            assert!(!changing.are_alike(&answer(first), &answer(repeat)), "{first}");
            assert!(changing.are_alike(&answer(first), &answer(first)), "{first}");
        }
    }
}
