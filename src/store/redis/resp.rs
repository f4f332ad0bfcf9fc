//! The wire format of the hot commands: RESP2. Commands are encoded directly into a connection's buffer. Replies are
//! slices of the bytes that were read. No I/O.
//!
//! The reply to a hot command is a bulk string, nil or an error. A handshake also has a status or an integer. Other
//! types are not read: they are an error.

use bytes::{Buf, Bytes, BytesMut};

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RespValue {
    /// There is no value.
    Nil,
    /// A value. It shares the memory of the read buffer.
    Bulk(Bytes),
    /// A short text, such as `OK`.
    Status(Bytes),
    /// A number.
    Integer(i64),
    /// The whole line of an error, including `-` and the line end.
    Error(Bytes),
}

/// The bytes are not a reply to any of the commands. Later replies cannot be separated any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Redis sent what is no reply to any of the commands")]
pub(super) struct ProtocolError;

/// The limit for a line. Errors have a few hundred bytes.
const LONGEST_LINE: usize = 8 * 1024;
/// No server sends a longer value (its `proto-max-bulk-len`).
const LONGEST_BULK: usize = 512 * 1024 * 1024;
const LINE_END: &[u8] = b"\r\n";

/// Takes the first reply from the input, if it is complete. The length of the line and the first line of a value are
/// checked first. So bytes that arrive one by one are not parsed repeatedly.
pub(super) fn take_reply(input: &mut BytesMut) -> Result<Option<RespValue>, ProtocolError> {
    match input.first() {
        None => return Ok(None),
        Some(b'+' | b'-' | b':' | b'$') => {}
        Some(_) => return Err(ProtocolError),
    }
    let head = &input[..input.len().min(LONGEST_LINE)];
    let Some(end) = memchr::memchr(b'\n', head) else {
        return if head.len() == LONGEST_LINE { Err(ProtocolError) } else { Ok(None) };
    };
    let line = head[1..end].strip_suffix(b"\r").ok_or(ProtocolError)?;
    let after_line = end + 1;
    match input[0] {
        b'$' if line == b"-1" => {
            input.advance(after_line);
            Ok(Some(RespValue::Nil))
        }
        b'$' => {
            let length =
                usize::try_from(integer(line)?).ok().filter(|length| *length <= LONGEST_BULK).ok_or(ProtocolError)?;
            let after_value = after_line + length;
            let Some(end) = input.get(after_value..after_value + LINE_END.len()) else { return Ok(None) };
            if end != LINE_END {
                return Err(ProtocolError);
            }
            input.advance(after_line);
            let value = input.split_to(length).freeze();
            input.advance(LINE_END.len());
            Ok(Some(RespValue::Bulk(value)))
        }
        b':' => {
            let number = integer(line)?;
            input.advance(after_line);
            Ok(Some(RespValue::Integer(number)))
        }
        b'-' => Ok(Some(RespValue::Error(input.split_to(after_line).freeze()))),
        _ => {
            let text = 1..end - 1;
            let line = input.split_to(after_line).freeze();
            Ok(Some(RespValue::Status(line.slice(text))))
        }
    }
}

fn integer(line: &[u8]) -> Result<i64, ProtocolError> {
    let text = std::str::from_utf8(line).map_err(|_| ProtocolError)?;
    // The standard library accepts a plus sign. Redis never sends one.
    if text.starts_with('+') {
        return Err(ProtocolError);
    }
    text.parse().map_err(|_| ProtocolError)
}

/// A command that is being written.
pub(super) struct CommandWriter<'a> {
    out: &'a mut Vec<u8>,
    words_left: usize,
}

impl<'a> CommandWriter<'a> {
    /// Starts a command of `words` words.
    pub(super) fn begin(out: &'a mut Vec<u8>, words: usize) -> Self {
        header(out, b'*', words as u64);
        Self { out, words_left: words }
    }

    pub(super) fn word(self, word: &[u8]) -> Self {
        self.joined(&[word])
    }

    /// Writes one word of several parts.
    pub(super) fn joined(mut self, parts: &[&[u8]]) -> Self {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.out.reserve(HEADER + length + LINE_END.len());
        header(self.out, b'$', length as u64);
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
        self.out.extend_from_slice(LINE_END);
        self.words_left -= 1;
        self
    }

    /// Starts one word of `length` bytes that the caller writes itself. The rest of the command goes into `rest`.
    pub(super) fn split(mut self, length: usize, rest: &'a mut Vec<u8>) -> Self {
        header(self.out, b'$', length as u64);
        rest.extend_from_slice(LINE_END);
        let words_left = std::mem::take(&mut self.words_left) - 1;
        Self { out: rest, words_left }
    }

    /// Writes `words` constant words that are already encoded.
    pub(super) fn encoded(mut self, words: usize, bytes: &'static [u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self.words_left -= words;
        self
    }

    pub(super) fn number(self, number: u64) -> Self {
        let mut line = [0; HEADER];
        let digits = digits(&mut line, number);
        self.word(&line[digits..DIGITS_END])
    }
}

impl Drop for CommandWriter<'_> {
    fn drop(&mut self) {
        debug_assert!(self.words_left == 0 || std::thread::panicking(), "a command has as many words as it says");
    }
}

fn header(out: &mut Vec<u8>, kind: u8, number: u64) {
    let mut line = [0; HEADER];
    line[DIGITS_END..].copy_from_slice(LINE_END);
    let start = digits(&mut line, number) - 1;
    line[start] = kind;
    out.extend_from_slice(&line[start..]);
}

/// The length of a type byte, the digits of any number, and a line end.
const HEADER: usize = DIGITS_END + LINE_END.len();
const DIGITS_END: usize = 21;

/// Writes a number's digits up to [`DIGITS_END`], and returns where they start.
fn digits(line: &mut [u8; HEADER], mut number: u64) -> usize {
    let mut at = DIGITS_END;
    loop {
        at -= 1;
        line[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Reads all replies in these pieces. Also returns the number of bytes that are left, or the error.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<RespValue>, Result<usize, ProtocolError>) {
        let (mut input, mut replies) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                match take_reply(&mut input) {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(nonsense) => return (replies, Err(nonsense)),
                }
            }
        }
        (replies, Ok(input.len()))
    }

    fn bytes_of(reply: &RespValue) -> Vec<u8> {
        match reply {
            RespValue::Nil => b"$-1\r\n".to_vec(),
            RespValue::Bulk(value) => [format!("${}\r\n", value.len()).as_bytes(), value, LINE_END].concat(),
            RespValue::Status(text) => [b"+", &text[..], LINE_END].concat(),
            RespValue::Integer(number) => format!(":{number}\r\n").into_bytes(),
            RespValue::Error(line) => line.to_vec(),
        }
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>().prop_filter("no line end", |byte| !matches!(byte, b'\r' | b'\n')), 0..40)
    }

    fn reply() -> impl Strategy<Value = RespValue> {
        prop_oneof![
            Just(RespValue::Nil),
            vec(any::<u8>(), 0..200).prop_map(|value| RespValue::Bulk(value.into())),
            line().prop_map(|text| RespValue::Status(text.into())),
            any::<i64>().prop_map(RespValue::Integer),
            line().prop_map(|text| RespValue::Error([b"-", &text[..], LINE_END].concat().into())),
        ]
    }

    proptest! {
        #[test]
        fn replies_are_read_the_same_wherever_they_are_split(
            replies in vec(reply(), 0..8), cuts in vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let sent: Vec<u8> = replies.iter().flat_map(bytes_of).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(sent.len() + 1)).collect();
            cuts.extend([0, sent.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|ends| &sent[ends[0]..ends[1]]);
            prop_assert_eq!(read(pieces), (replies.clone(), Ok(0)));
            prop_assert_eq!(read(sent.chunks(1)), (replies, Ok(0)));
        }

        #[test]
        fn any_bytes_are_read_to_some_end_and_the_same_one_in_pieces(bytes in vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"+-:$*_0123456789\r\n".to_vec())], 0..300,
        )) {
            let whole = read([&bytes[..]]);
            let pieces = read(bytes.chunks(1));
            prop_assert_eq!(&whole, &pieces);
            // The replies contain no more than what was sent.
            let read: usize = whole.0.iter().map(|reply| bytes_of(reply).len()).sum();
            prop_assert!(read <= bytes.len() + 20 * whole.0.len());
        }

        #[test]
        fn a_command_is_what_the_redis_crate_makes_of_it(
            words in vec(vec(any::<u8>(), 0..40), 1..6), number in any::<u64>(),
        ) {
            let mut out = Vec::new();
            let mut command = CommandWriter::begin(&mut out, words.len() + 1);
            let mut theirs = redis::Cmd::new();
            for word in &words {
                let (first, second) = word.split_at(word.len() / 2);
                command = command.joined(&[first, second]);
                theirs.arg(word);
            }
            drop(command.number(number));
            prop_assert_eq!(out, theirs.arg(number).get_packed_command());
        }
    }

    #[test]
    fn what_is_no_reply_is_refused_as_soon_as_it_shows() {
        for nonsense in [
            "*1\r\n",
            "_\r\n",
            ">2\r\n",
            "HTTP/1.1 400 Bad Request\r\n",
            "$-2\r\n",
            "$x\r\n",
            "$\r\n",
            "$+1\r\n1\r\n",
            "$536870913\r\n",
            "$99999999999999999999999\r\n",
            "$1\r\nab\r\n",
            "$1\n",
            ":\r\n",
            ":1x\r\n",
        ] {
            assert_eq!(read([nonsense.as_bytes()]), (Vec::new(), Err(ProtocolError)), "{nonsense:?}");
        }
        // A line without an end is refused too.
        let endless = [b"-".to_vec(), vec![b'x'; LONGEST_LINE]].concat();
        assert_eq!(read(endless.chunks(100)), (Vec::new(), Err(ProtocolError)));
    }

    #[test]
    fn a_word_that_is_written_elsewhere_leaves_a_gap_for_it() {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        CommandWriter::begin(&mut head, 4).word(b"SET").word(b"k").split(5, &mut tail).number(7);
        let mut whole = Vec::new();
        CommandWriter::begin(&mut whole, 4).word(b"SET").word(b"k").word(b"value").number(7);
        assert_eq!([&head[..], b"value", &tail[..]].concat(), whole);
    }

    #[test]
    fn a_value_shares_the_memory_that_it_was_read_into() {
        let mut input = BytesMut::from(&b"$5\r\nvalue\r\n$-1\r\n"[..]);
        let place = input.as_ptr() as usize;
        let Ok(Some(RespValue::Bulk(value))) = take_reply(&mut input) else { panic!("a value") };
        assert_eq!(value.as_ptr() as usize, place + 4);
        assert_eq!(&input[..], b"$-1\r\n");
    }
}
