//! Names that backends may take for the selected one.
//!
//! PHP turns `my.k`, `my k` and `my[k` into `my_k`, `my_k[]` into an array, and ends a name at a NUL. Express nests names in
//! brackets, and takes `[my_k]` for `my_k`; others nest by dots. .NET ignores the case of a field's name, and Go that of a
//! JSON member's. A proxy cannot know which of two such fields the backend takes, or whether it takes a single one for the
//! key.

/// Whether backends may take a field of a form, or a parameter of a query, for the selected one.
pub(super) fn is_lookalike(found: &[u8], wanted: &str) -> bool {
    if found == wanted.as_bytes() {
        return false;
    }
    let found = String::from_utf8_lossy(found);
    // Each bracket adds a character to the folded name, so that the comparison can stop early. A client may send a million
    // brackets.
    let mut prefixes = outer(&found).take(wanted.len() + 2);
    // `order[id]` makes `order` an array, which a field `order` replaces.
    folded(&found).eq(folded(wanted))
        || prefixes.any(|outer| folded(outer).eq(folded(wanted)))
        || outer(wanted).any(|outer| folded(outer).eq(folded(&found)))
}

/// The part before each bracket.
fn outer(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('[').map(|(at, _)| &name[..at]).filter(|outer| !outer.is_empty())
}

/// The name in the most lenient reading, lazily, so that few characters of a long name are read.
fn folded(name: &str) -> impl Iterator<Item = char> {
    let name = name.split('\0').next().unwrap_or_default();
    let name = name.trim_start_matches('\u{feff}').trim();
    let name = name.strip_prefix('[').unwrap_or(name);
    let characters = name.chars().filter(|c| *c != ']');
    characters.flat_map(|c| in_one_case(if matches!(c, '.' | '[') || c.is_whitespace() { '_' } else { c }))
}

/// Whether backends may take a member of a JSON object for the selected one.
pub(super) fn is_member_lookalike(found: &str, wanted: &str) -> bool {
    let found = if found.contains('\0') { found.split('\0').next().unwrap_or_default() } else { found };
    if found.is_ascii() && wanted.is_ascii() {
        return found.eq_ignore_ascii_case(wanted);
    }
    found.chars().flat_map(in_one_case).eq(wanted.chars().flat_map(in_one_case))
}

/// The long s is an S, and the Kelvin sign a K (Unicode, simple case folding).
fn in_one_case(c: char) -> impl Iterator<Item = char> {
    c.to_uppercase().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_frameworks_fold_are_lookalikes() {
        for found in [
            "my.k",
            "my k",
            "my[k",
            "my[k]",
            "[my_k]",
            "MY_K",
            "my_k\0x",
            " my_k",
            "\u{feff}my_k",
            "my_k[]",
            "my_k[a][b]",
            "My.K[0]",
            "my_\u{212a}",
        ] {
            assert!(is_lookalike(found.as_bytes(), "my_k"), "{found:?}");
        }
        for found in ["my_k", "my__k", "my_key", "my-k", "myk", "my_k_2", "my.k.x", "x[my_k]", "my", "", "\u{e9}"] {
            assert!(!is_lookalike(found.as_bytes(), "my_k"), "{found:?}");
        }
        assert!(!is_lookalike(b"my_\xe9", "my_k"));
    }

    /// Comparing each prefix as a whole would take hours.
    #[test]
    fn a_name_of_a_million_brackets_is_looked_at_once() {
        for name in [vec![b'['; 1 << 20], [vec![b'a'; 1 << 19], vec![b'['; 1 << 19]].concat(), b"[]".repeat(1 << 19)] {
            assert!(!is_lookalike(&name, "my_k"));
            assert!(!is_lookalike(&name, "order[id]"));
        }
        let name = [b"my_k".to_vec(), vec![b'['; 1 << 20]].concat();
        assert!(is_lookalike(&name, "my_k"));
    }

    #[test]
    fn other_members_of_an_array_are_none() {
        for (found, expected) in [
            ("order[id]", false),
            ("order[item]", false),
            ("order[items][0]", false),
            ("orders", false),
            ("order", true),
            ("order_id", true),
            ("order.id", true),
            ("order[ID]", true),
            ("order[id][]", true),
        ] {
            assert_eq!(is_lookalike(found.as_bytes(), "order[id]"), expected, "{found}");
        }
    }

    #[test]
    fn members_differ_in_more_than_their_case() {
        for (found, expected) in [("ID", true), ("iD", true), ("id\0x", true), ("ids", false), ("i_d", false)] {
            assert_eq!(is_member_lookalike(found, "id"), expected, "{found:?}");
        }
        assert!(is_member_lookalike("\u{17f}ey", "SEY") && is_member_lookalike("\u{212a}", "k"));
    }
}
