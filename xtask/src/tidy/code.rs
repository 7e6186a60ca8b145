//! The code of a normal build: the tokens of a file without comments, attributes, and what only tests and checkers see.

use crate::patch;

/// The conditions that do not hold in a normal build.
const CHECKERS: [&str; 4] = ["test", "doctest", "loom", "shuttle"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    /// Counted from 1.
    pub(super) line: usize,
}

impl Token<'_> {
    pub(super) fn is_word(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// The tokens of `source` that a normal build compiles.
pub(super) fn code(source: &str) -> Vec<Token<'_>> {
    let (mut line, mut seen) = (1, 0);
    let all: Vec<_> = patch::tokens(source)
        .into_iter()
        .map(|range| {
            line += source[seen..range.start].matches('\n').count();
            seen = range.start;
            Token { text: &source[range], line }
        })
        .collect();
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < all.len() {
        let Some((attribute, end)) = attribute(&all, at) else {
            kept.push(all[at]);
            at += 1;
            continue;
        };
        let is_there = match attribute.as_slice() {
            ["cfg", "(", condition @ .., ")"] => holds(condition),
            _ => true,
        };
        at = match all[at + 1].text {
            _ if is_there => end,
            // All of the file.
            "!" => return Vec::new(),
            _ => item_end(&all, end),
        };
    }
    kept
}

/// The attribute that begins at `at`, and the place behind it.
fn attribute<'a>(all: &[Token<'a>], at: usize) -> Option<(Vec<&'a str>, usize)> {
    let text = |at: usize| all.get(at).map(|token| token.text);
    let open = at + 1 + usize::from(text(at + 1) == Some("!"));
    if text(at) != Some("#") || text(open) != Some("[") {
        return None;
    }
    let end = closing(all, open);
    Some((all[open + 1..end].iter().map(|token| token.text).collect(), end + 1))
}

/// The place of the bracket that closes the one at `open`.
fn closing(all: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in all.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    all.len() - 1
}

/// Whether a condition holds in a normal build.
fn holds(condition: &[&str]) -> bool {
    match condition {
        ["not", "(", inner @ .., ")"] => !holds(inner),
        ["all", "(", inner @ .., ")"] => parts(inner).into_iter().all(holds),
        ["any", "(", inner @ .., ")"] => parts(inner).into_iter().any(holds),
        [name, ..] => !CHECKERS.contains(name),
        [] => true,
    }
}

/// What stands between the commas that are in no bracket.
fn parts<'a, 'b>(list: &'a [&'b str]) -> Vec<&'a [&'b str]> {
    let mut depth = 0;
    list.split(|text| {
        depth += i32::from(*text == "(") - i32::from(*text == ")");
        depth == 0 && *text == ","
    })
    .filter(|part| !part.is_empty())
    .collect()
}

/// The place behind the item, field, arm or statement that begins at `at`.
fn item_end(all: &[Token<'_>], mut at: usize) -> usize {
    while let Some((_, end)) = attribute(all, at) {
        at = end;
    }
    let is_list = !all[at..].iter().take(4).any(|token| {
        ["fn", "impl", "struct", "enum", "mod", "trait", "type", "const", "static", "use", "let", "macro_rules"]
            .contains(&token.text)
    });
    let is_use = all[at..].iter().take_while(|token| token.text != "{").any(|token| token.text == "use");
    while at < all.len() {
        match all[at].text {
            ";" => return at + 1,
            "," if is_list => return at + 1,
            "{" if !is_use => return closing(all, at) + 1,
            "(" | "[" | "{" => at = closing(all, at) + 1,
            // The end of what it is in.
            ")" | "]" | "}" => return at,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> String {
        code(source).iter().map(|token| token.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_only_tests_and_checkers_see_is_no_code() {
        for (source, kept) in [
            ("a; #[cfg(test)] mod tests { use b; fn c() { d } } e;", "a ; e ;"),
            ("#[cfg(loom)] use a::{b, c}; use d;", "use d ;"),
            ("#[cfg(not(loom))] use a; #[cfg(all(test, not(any(loom, shuttle))))] mod b; c", "use a ; c"),
            (
                "#[cfg(any(test, feature = \"async\"))] #[derive(Debug)] struct A; #[test] fn b<C, D>() {}",
                "struct A ; fn b < C , D > ( ) { }",
            ),
            ("struct A { #[cfg(loom)] b: [u8; 4], c: d }", "struct A { c : d }"),
            ("#![cfg(loom)] a;", ""),
            ("#![forbid(unsafe_code)] a; // b\n/// c\nd", "a ; d"),
        ] {
            assert_eq!(texts(source), kept, "{source}");
        }
    }

    #[test]
    fn a_token_knows_its_line() {
        let lines: Vec<_> = code("a\n// b\nc \"d\ne\" f").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 3, 4]);
    }
}
