//! Where records are kept. When it changes, existing records are no longer found.

use serde::{Deserialize, Serialize};

use crate::config::StoreConfig;
use crate::rule::ChangedSetting;

/// Where records are kept, and whether their names have a configured key. Contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPlacement {
    /// `store.url`, without user and password.
    pub store: String,
    /// `store.prefix`
    pub prefix: String,
    /// Whether `store.digest_key` is given.
    pub digest_key: bool,
}

impl RecordPlacement {
    /// The placement in this configuration.
    pub fn of(store: &StoreConfig) -> Self {
        let digest_key = store.digest_key.is_some();
        Self { store: store.location.to_string(), prefix: store.prefix.clone(), digest_key }
    }

    /// The settings that differ and concern the records of all routes. `same_digest_key` is `None` unless both sides have a
    /// digest key.
    pub fn changes(&self, now: &Self, same_digest_key: Option<bool>) -> Vec<ChangedSetting> {
        let key = |given| if given { "given" } else { "not given" }.to_owned();
        let mut settings = vec![
            ("store.url", self.store.clone(), now.store.clone()),
            ("store.prefix", self.prefix.clone(), now.prefix.clone()),
            ("store.digest_key", key(self.digest_key), key(now.digest_key)),
        ];
        if self.digest_key && now.digest_key && same_digest_key == Some(false) {
            settings.push(("store.digest_key", "another".to_owned(), "this one".to_owned()));
        }
        ChangedSetting::differing(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn another_store_or_digest_key_is_told() {
        let keeping = |store: &str| {
            let text = format!(
                "upstream.url = \"http://backend\"\n[store]\n{store}\n[[route]]\nname = \"a\"\npath = \"/a\"\nscope = []"
            );
            RecordPlacement::of(&parse("test.toml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}")).store)
        };
        let told = |was: &RecordPlacement, is: &RecordPlacement, same| -> Vec<String> {
            was.changes(is, same).iter().map(ToString::to_string).collect()
        };
        let plain = keeping("url = \"redis://:secret@one/2\"");
        let keyed = keeping("url = \"redis://:other@one/2\"\ndigest_key = \"0123456789abcdef\"");
        assert_eq!(told(&plain, &plain, None), Vec::<String>::new());
        assert_eq!(told(&plain, &keyed, None), ["store.digest_key was not given, and is given"]);
        assert_eq!(told(&keyed, &keyed, Some(true)), Vec::<String>::new());
        assert_eq!(told(&keyed, &keyed, Some(false)), ["store.digest_key was another, and is this one"]);
        let moved = keeping("url = \"redis://one/3\"\nprefix = \"p\"");
        let expected =
            ["store.url was redis://one:6379/2, and is redis://one:6379/3", "store.prefix was onlyonce, and is p"];
        assert_eq!(told(&plain, &moved, None), expected);
    }
}
