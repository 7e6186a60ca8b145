//! A change to one place of the sources, found by its code alone: comments and layout do not count.
//!
//! Both texts are split into tokens, so that a reworded comment or another line break leaves every change where it was.
//! The file is named by its crate and the end of its path, so that it may move to another folder.

use core::ops::Range;
use std::fs;
use std::path::{Path, PathBuf};

/// Replaces `from`, which stands exactly once in `file`, by `to`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// The crate, and the path below its `src`, or the end of one: `buffer_ring/rotation.rs`.
    pub(crate) file: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
}

impl Change {
    /// The file, in the checkout at `root`.
    pub(crate) fn path(&self, root: &Path) -> Result<PathBuf, String> {
        let (package, end) = self.file.split_once('/').ok_or_else(|| format!("{}: no crate is named", self.file))?;
        let (sources, mut found) = (root.join("crates").join(package).join("src"), Vec::new());
        if sources.join(end).is_file() {
            return Ok(sources.join(end));
        }
        collect(&sources, Path::new(end), &mut found)?;
        match found.as_slice() {
            [path] => Ok(path.clone()),
            [] => Err(format!("{}: the crate has no such file", self.file)),
            _ => Err(format!("{}: several files are called so; name the folder, too", self.file)),
        }
    }

    /// `source`, changed.
    pub(crate) fn apply(&self, source: &str) -> Result<String, String> {
        let place = self.place(source)?;
        Ok([&source[..place.start], self.to, &source[place.end..]].concat())
    }

    /// Whether it changes anything in the checkout at `root`.
    #[cfg(test)]
    pub(crate) fn try_on(&self, root: &Path) -> Result<(), String> {
        let path = self.path(root)?;
        let source = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if self.apply(&source)? == source { Err(format!("{}: nothing is changed", self.file)) } else { Ok(()) }
    }

    /// Where `from` stands in `source`.
    pub(crate) fn place(&self, source: &str) -> Result<Range<usize>, String> {
        let (code, wanted) = (tokens(source), tokens(self.from));
        let text = |text: &'static str| move |token: &Range<usize>| &text[token.clone()];
        let wanted: Vec<_> = wanted.iter().map(text(self.from)).collect();
        let is_here =
            |window: &&[Range<usize>]| window.iter().map(|token| &source[token.clone()]).eq(wanted.iter().copied());
        let mut places = code.windows(wanted.len().max(1)).filter(is_here);
        match (places.next(), places.count()) {
            (Some(window), 0) => Ok(window[0].start..window[window.len() - 1].end),
            (first, others) => {
                let count = others + usize::from(first.is_some());
                Err(format!("{} has this {count} times instead of once:\n{}", self.file, self.from))
            }
        }
    }
}

/// Adds the files below `folder` whose paths end with `end`.
fn collect(folder: &Path, end: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    for entry in entries.map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, end, found)?;
        } else if path.ends_with(end) {
            found.push(path);
        }
    }
    Ok(())
}

/// The places of the tokens of `source`: words, literals in quotes, and single other characters. Comments are none.
pub(crate) fn tokens(source: &str) -> Vec<Range<usize>> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(next) = source[at..].chars().next() {
        let rest = &source[at..];
        let len = if next.is_whitespace() {
            next.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else {
            let len = token_len(rest);
            tokens.push(at..at + len);
            len
        };
        at += len;
    }
    tokens
}

/// Bytes of the token that `rest` begins with.
fn token_len(rest: &str) -> usize {
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let first = rest.chars().next().expect("not empty");
    let hashes = rest.strip_prefix('r').map_or(0, |rest| rest.len() - rest.trim_start_matches('#').len());
    if rest.starts_with('r') && rest[1 + hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = 2 + hashes;
        return rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len());
    }
    match first {
        '"' => quoted_len(rest, '"'),
        // A lifetime has no second quote.
        '\'' if rest[1..].starts_with('\\') || rest[1..].chars().nth(1) == Some('\'') => quoted_len(rest, '\''),
        _ if is_word(first) => rest.find(|char| !is_word(char)).unwrap_or(rest.len()),
        _ => first.len_utf8(),
    }
}

/// Bytes up to the `quote` that ends what begins with one.
fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, char) in rest.char_indices().skip(1) {
        if char == quote && !escaped {
            return at + 1;
        }
        escaped = char == '\\' && !escaped;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(from: &'static str, to: &'static str) -> Change {
        Change { file: "x/y.rs", from, to }
    }

    #[test]
    fn comments_and_layout_do_not_count() {
        let change = change("a.b(c, // as it was\n  Acquire);", "a.b(c, Relaxed);");
        for source in
            ["a.b(c, Acquire);", "a\n  .b(c,\n // why \"it\" is\n Acquire) ;", "a.b(c, Acquire); // a.b(c, Acquire);"]
        {
            let changed = change.apply(source).unwrap();
            assert!(changed.starts_with("a.b(c, Relaxed);"), "{changed}");
        }
    }

    #[test]
    fn what_stands_twice_or_in_another_token_is_not_found() {
        let change = change("take()", "give()");
        assert!(change.apply("take(); take();").unwrap_err().contains("2 times"));
        for source in ["retake()", "take_all()", "\"take()\"", "// take()", "r#\"\" take()\"#"] {
            assert!(change.apply(source).unwrap_err().contains("0 times"), "{source}");
        }
    }

    #[test]
    fn quotes_are_told_from_lifetimes() {
        let source = r#"fn f<'a>(x: &'a str) { x.split('"'); y('\'', '/'); } // 'b"#;
        let found: Vec<_> = tokens(source).into_iter().map(|token| &source[token]).collect();
        for token in ["'\"'", "'\\''", "'/'"] {
            assert!(found.contains(&token), "{token}: {found:?}");
        }
        assert_eq!(found.iter().filter(|token| **token == "a").count(), 2);
    }

    #[test]
    fn a_file_is_named_by_its_crate_and_the_end_of_its_path() {
        let root = crate::run::root();
        let path = |file| Change { file, from: "", to: "" }.path(&root);
        assert!(path("buffer_ring/rotation.rs").unwrap().ends_with("crates/buffer_ring/src/staging/rotation.rs"));
        assert!(path("buffer_ring/no_such.rs").is_err());
        assert!(path("buffer_ring/mod.rs").unwrap_err().contains("several"));
    }
}
