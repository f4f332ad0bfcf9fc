//! Most documents are plain: no string in them has an escape. Those are read here, without an event for each value, which
//! takes a third of the instructions (10,400 instead of 34,100 for an order of 300 bytes with eight numbers, when it is
//! parsed for the first time). What is not plain, or no JSON, is left to the parser of events, which decides.

use std::borrow::Cow;

use super::{Json, JsonValue, MAX_DEPTH, Member, object};

/// The document, if it is plain.
pub(super) fn parse(text: &[u8]) -> Option<Json<'_>> {
    let mut reader = PlainReader { text: str::from_utf8(text).ok()?, at: 0, has_duplicates: false };
    let root = reader.value(0)?;
    reader.skip_space();
    (reader.at == text.len()).then_some(Json { root, has_duplicates: reader.has_duplicates })
}

struct PlainReader<'a> {
    text: &'a str,
    at: usize,
    has_duplicates: bool,
}

impl<'a> PlainReader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// What comes next behind white space.
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    /// A value within this number of arrays and objects.
    fn value(&mut self, depth: usize) -> Option<JsonValue<'a>> {
        match self.next()? {
            b'"' => self.string().map(JsonValue::String),
            b'{' if depth < MAX_DEPTH => self.object(depth + 1),
            b'[' if depth < MAX_DEPTH => self.array(depth + 1),
            b't' => self.literal("rue", JsonValue::Bool(true)),
            b'f' => self.literal("alse", JsonValue::Bool(false)),
            b'n' => self.literal("ull", JsonValue::Null),
            b'-' | b'0'..=b'9' => {
                self.at -= 1;
                self.number()
            }
            _ => None,
        }
    }

    fn literal(&mut self, rest: &str, value: JsonValue<'a>) -> Option<JsonValue<'a>> {
        let is_it = self.text.as_bytes()[self.at..].starts_with(rest.as_bytes());
        self.at += rest.len();
        is_it.then_some(value)
    }

    fn array(&mut self, depth: usize) -> Option<JsonValue<'a>> {
        let mut values = Vec::new();
        self.skip_space();
        if self.peek()? == b']' {
            self.at += 1;
            return Some(JsonValue::Array(values));
        }
        loop {
            values.push(self.value(depth)?);
            match self.next()? {
                b',' => {}
                b']' => return Some(JsonValue::Array(values)),
                _ => return None,
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<JsonValue<'a>> {
        let mut members: Vec<Member<'a>> = Vec::new();
        let mut next = self.next()?;
        if next != b'}' {
            loop {
                let name = Some(next).filter(|next| *next == b'"').and_then(|_| self.string())?;
                if self.next()? != b':' {
                    return None;
                }
                members.push((name, self.value(depth)?));
                match self.next()? {
                    b',' => next = self.next()?,
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        let (value, has_duplicates) = object(members);
        self.has_duplicates |= has_duplicates;
        Some(value)
    }

    /// The rest of a string, behind its opening quote.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        let length = special(&self.text.as_bytes()[start..])?;
        self.at += length + 1;
        // Neither an escape nor a control character, which may not stand there as it is.
        (self.text.as_bytes()[start + length] == b'"').then(|| Cow::Borrowed(&self.text[start..start + length]))
    }

    /// RFC 8259, 6.
    fn number(&mut self) -> Option<JsonValue<'a>> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Some(JsonValue::Number(Cow::Borrowed(&self.text[start..self.at])))
    }

    /// One digit at least.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// How many bytes there are before the first quote, backslash or control character. Eight at a time: each term sets the
/// highest bit of the bytes that it looks for, and may set it of others only above the first of these.
fn special(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let below = |limit: u8, word: u64| word.wrapping_sub(LOW * u64::from(limit)) & !word;
        let is = |byte: u8| below(1, word ^ (LOW * u64::from(byte)));
        let found = (below(0x20, word) | is(b'"') | is(b'\\')) & HIGH;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| matches!(byte, ..0x20 | b'"' | b'\\'))?;
    Some(words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// Documents with white space here and there. `strings` is what may stand between quotes.
    fn document(strings: &'static str) -> impl Strategy<Value = String> {
        let space = "[ \t\n\r]{0,2}";
        let string = strings.prop_map(|text| format!("\"{text}\""));
        let leaf = prop_oneof![
            string.clone(),
            "-?(0|[1-9][0-9]{0,12})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?",
            "true|false|null",
        ];
        leaf.prop_recursive(5, 40, 5, move |inner| {
            let spaced = (space, inner, space).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
            // Few names, so that some are there twice.
            let name = prop_oneof![Just("\"a\"".to_owned()), Just("\"\"".to_owned()), string.clone()];
            let member =
                (name, space, spaced.clone()).prop_map(|(name, space, value)| format!("{name}{space}:{value}"));
            prop_oneof![
                vec(spaced, 0..5).prop_map(|values| format!("[{}]", values.join(","))),
                vec(member, 0..5).prop_map(|members| format!("{{ {}}}", members.join(", "))),
            ]
        })
    }

    fn changed(text: String, changes: Vec<(Index, u8, bool)>) -> Vec<u8> {
        let mut bytes = text.into_bytes();
        for (at, byte, is_new) in changes {
            let at = at.index(bytes.len().max(1)).min(bytes.len());
            if is_new || bytes.is_empty() {
                bytes.insert(at, byte);
            } else {
                bytes[at] = byte;
            }
        }
        bytes
    }

    #[test]
    fn what_may_not_stand_in_a_string_is_found_wherever_it_is() {
        for before in 0..40 {
            for found in [b'"', b'\\', 0, b'\n', 0x1f] {
                for behind in [&b""[..], b"\"", b"\xff\x1f\"", &[0x21; 20], &[0; 9]] {
                    let text = [&vec![b'#'; before][..], &[found], behind].concat();
                    assert_eq!(special(&text), Some(before), "{text:?}");
                }
            }
            assert_eq!(special(&vec![0x7f; before]), None);
            assert_eq!(special(&"ü !#[]".repeat(before).into_bytes()), None);
        }
    }

    #[test]
    fn plain_documents_are_read_here_and_no_others() {
        for plain in ["{}", " [ ] ", "{\"a\" : [1, -0.5e+3, \"ü\", true, false, null]}\n", "\"\"", "0"] {
            assert!(parse(plain.as_bytes()).is_some(), "{plain}");
        }
        for other in
            ["\"\\n\"", "\u{feff}1", "", "01", "1.", "-", "tru", "[1,]", "{\"a\":1,}", "{,}", "[", "1 1", "\"\t\""]
        {
            assert!(parse(other.as_bytes()).is_none(), "{other}");
        }
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_some());
        assert!(parse(nested(MAX_DEPTH + 1).as_bytes()).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn a_plain_document_has_the_values_that_the_other_parser_finds(text in document("[ -!#-\\[\\]-~ü😀]{0,20}")) {
            let plain = parse(text.as_bytes());
            prop_assert!(plain.is_some(), "{}", text);
            prop_assert_eq!(plain, Json::parse_events(text.as_bytes()));
        }

        #[test]
        fn whatever_is_read_here_the_other_parser_reads_alike(
            text in document("([ -!#-\\[\\]-~ü]|\\\\[\"\\\\/bfnrtux]|\\\\u00[0-9a-f]{2}){0,12}"),
            changes in vec((any::<Index>(), prop_oneof![any::<u8>(), prop::sample::select(&b"{}[],:\"\\0123456789.eE+-tfn \n"[..])], any::<bool>()), 0..4),
        ) {
            let text = changed(text, changes);
            if let Some(plain) = parse(&text) {
                prop_assert_eq!(Some(plain), Json::parse_events(&text));
            }
        }
    }
}
