//! What the command says: facts, tables and lines, as text for people or as JSON for programs.

use core::error::Error;
use core::fmt::{self, Write as _};
use core::ops::Range;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write, stdout};
use std::process::ExitCode;

use clap::Args;
use indicatif::BinaryBytes;
use ringlog::Lsn;
use serde_json::{Map, Value, json};

/// Text is wrapped there.
const COLUMNS: usize = 100;

/// Text or JSON.
#[derive(Debug, Args)]
pub(crate) struct Form {
    /// Print JSON, as is done where the output is no terminal
    #[arg(long, global = true, conflicts_with = "text")]
    json: bool,
    /// Print text, as is done on a terminal
    #[arg(long, global = true)]
    text: bool,
}

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Good = 0,
    Torn = 1,
    Damaged = 2,
    Unjudged = 3,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Why a subcommand has ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be printed.
    Why(String),
    /// The reader of the output has gone.
    Pipe,
}

impl<E: Error> From<E> for Failure {
    /// The error with all its sources.
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        Self::Why(text)
    }
}

impl Failure {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self::Why(why.into())
    }

    /// For `map_err`: what was tried.
    pub(crate) fn at<E: Error>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| match error.into() {
            Self::Why(why) => Self::Why(format!("{what}: {why}")),
            other => other,
        }
    }
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    is_json: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    pub(crate) fn new(form: &Form) -> Self {
        let is_json = form.json || (!form.text && !stdout().is_terminal());
        Self { is_json, out: BufWriter::new(stdout()) }
    }

    /// Prints facts and tables.
    pub(crate) fn page(&mut self, page: &Page) -> Result<(), Failure> {
        let text = if self.is_json { json_line(&format!("{:#}", page.json())) } else { page.text() };
        self.raw(&text)
    }

    /// A line of a stream: text, which must be [`clean`], or a JSON object.
    pub(crate) fn line(&self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> String {
        if self.is_json { json_line(&json().to_string()) } else { text() + "\n" }
    }

    /// Prints text as it is.
    pub(crate) fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes()).map_err(Self::gone)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Self::gone)
    }

    fn gone(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe { Failure::Pipe } else { Failure::at("cannot print")(error) }
    }

    /// Says something beside a stream: on standard error, and as a line of JSON in it.
    pub(crate) fn remark(&mut self, text: &str, json: impl FnOnce() -> Value) -> Result<(), Failure> {
        if self.is_json {
            self.raw(&json_line(&json().to_string()))?;
        }
        self.flush()?;
        // Where it cannot be printed, the exit status says it.
        let _ = writeln!(io::stderr(), "ringlog: {}", clean(text));
        Ok(())
    }

    /// Prints why nothing more comes.
    pub(crate) fn fail(&mut self, why: &str) {
        if self.is_json {
            // Whether it is read does not change what happened.
            let error = json_line(&json!({ "error": why }).to_string());
            let _ = self.raw(&error).and_then(|()| self.flush());
        }
        let _ = writeln!(io::stderr(), "ringlog: {}", clean(why));
    }
}

/// JSON as a line: what a terminal obeys is escaped, which only strings contain.
fn json_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len() + 1);
    for char in json.chars() {
        if char == '\n' || !is_unsafe(char) {
            line.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}");
            }
        }
    }
    line.push('\n');
    line
}

/// Whether a terminal might obey it, or show it as something else.
fn is_unsafe(char: char) -> bool {
    // All else that `escape_debug` escapes is a control or format character, or one that is shown with its neighbour.
    !matches!(char, '"' | '\'' | '\\') && !char.is_ascii_graphic() && char != ' ' && char.escape_debug().len() > 1
}

/// The text without anything that a terminal obeys.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for char in text.chars() {
        if is_unsafe(char) { clean.extend(char.escape_debug()) } else { clean.push(char) }
    }
    clean
}

/// Bytes as text: what is no text, or not to be printed, is escaped.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.extend(
            chunk
                .valid()
                .chars()
                .map(|char| if char == '\\' { "\\\\".into() } else { clean(char.encode_utf8(&mut [0; 4])) }),
        );
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Bytes in JSON: `utf8` if they are text, otherwise `hex`.
pub(crate) fn json_bytes(bytes: &[u8]) -> (&'static str, Value) {
    match str::from_utf8(bytes) {
        Ok(text) => ("utf8", text.into()),
        Err(_) => ("hex", hex(bytes).into()),
    }
}

/// One value, in both forms.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    json: Value,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, json: impl Into<Value>) -> Self {
        Self { text: text.into(), json: json.into() }
    }

    /// A number that people read as a size.
    pub(crate) fn size(bytes: u64) -> Self {
        let text = if bytes < 1024 { format!("{bytes} B") } else { format!("{bytes} B ({})", BinaryBytes(bytes)) };
        Self::new(text, bytes)
    }

    /// A number without an order.
    pub(crate) fn id(id: u64) -> Self {
        let text = format!("{id:016x}");
        Self::new(text.clone(), text)
    }

    /// Bytes of another program.
    pub(crate) fn foreign(bytes: &[u8]) -> Self {
        let (name, value) = json_bytes(bytes);
        Self::new(escaped(bytes), if name == "utf8" { value } else { json!({ name: value }) })
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::new(number.to_string(), number)
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        u64::from(number).into()
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        (number as u64).into()
    }
}

impl From<bool> for Cell {
    fn from(yes: bool) -> Self {
        Self::new(if yes { "yes" } else { "no" }, yes)
    }
}

impl From<Lsn> for Cell {
    fn from(lsn: Lsn) -> Self {
        lsn.get().into()
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(clean(text), text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<Range<u64>> for Cell {
    fn from(Range { start, end }: Range<u64>) -> Self {
        Self::new(format!("{start}..{end}"), json!({ "from": start, "to": end }))
    }
}

impl From<Range<Lsn>> for Cell {
    fn from(Range { start, end }: Range<Lsn>) -> Self {
        (start.get()..end.get()).into()
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::new("-", Value::Null), Into::into)
    }
}

/// Facts and tables, in order.
#[derive(Debug, Default)]
pub(crate) struct Page {
    items: Vec<(&'static str, Item)>,
}

#[derive(Debug)]
enum Item {
    Fact(Cell),
    List(Vec<Cell>),
    Table(&'static [&'static str], Vec<Vec<Cell>>),
}

impl Page {
    pub(crate) fn fact(&mut self, name: &'static str, value: impl Into<Cell>) -> &mut Self {
        self.items.push((name, Item::Fact(value.into())));
        self
    }

    /// Adds a list, in text only if it has members.
    pub(crate) fn list<T: Into<Cell>>(&mut self, name: &'static str, values: impl IntoIterator<Item = T>) -> &mut Self {
        self.items.push((name, Item::List(values.into_iter().map(Into::into).collect())));
        self
    }

    /// Adds a table, in text only if it has rows.
    pub(crate) fn table(
        &mut self,
        name: &'static str,
        columns: &'static [&'static str],
        rows: Vec<Vec<Cell>>,
    ) -> &mut Self {
        self.items.push((name, Item::Table(columns, rows)));
        self
    }

    fn json(&self) -> Value {
        let key = |name: &str| name.replace(' ', "_");
        let row = |columns: &[&str], row: &Vec<Cell>| {
            columns.iter().zip(row).map(|(name, cell)| (key(name), cell.json.clone())).collect::<Map<_, _>>()
        };
        let value = |item: &Item| match item {
            Item::Fact(cell) => cell.json.clone(),
            Item::List(cells) => cells.iter().map(|cell| cell.json.clone()).collect(),
            Item::Table(columns, rows) => rows.iter().map(|cells| Value::from(row(columns, cells))).collect(),
        };
        Value::from(self.items.iter().map(|(name, item)| (key(name), value(item))).collect::<Map<_, _>>())
    }

    fn text(&self) -> String {
        let facts = self.items.iter().filter(|(_, item)| !matches!(item, Item::Table(..)));
        let width = facts.map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        let add = |text: &mut String, name: &str, cell: &Cell| {
            for (n, line) in wrapped(&cell.text, COLUMNS.saturating_sub(width + 2)).into_iter().enumerate() {
                let name = if n == 0 { name } else { "" };
                let _ = writeln!(text, "{name:width$}  {line}");
            }
        };
        for (name, item) in &self.items {
            match item {
                Item::Fact(cell) => add(&mut text, name, cell),
                Item::List(cells) => {
                    for (n, cell) in cells.iter().enumerate() {
                        add(&mut text, if n == 0 { name } else { "" }, cell);
                    }
                }
                Item::Table(_, rows) if rows.is_empty() => {}
                Item::Table(columns, rows) => {
                    let _ = writeln!(text, "\n{name}");
                    add_table(&mut text, columns, rows);
                }
            }
        }
        text
    }
}

/// The text in lines of so many columns, unless a word is longer.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.len() - 1;
        if !lines[line].is_empty() && lines[line].chars().count() + 1 + word.chars().count() > columns {
            lines.push(word.to_owned());
        } else {
            let space = if lines[line].is_empty() { "" } else { " " };
            lines[line].extend([space, word]);
        }
    }
    lines
}

fn add_table(text: &mut String, columns: &[&str], rows: &[Vec<Cell>]) {
    let widths: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(n, name)| rows.iter().map(|row| row[n].text.chars().count()).max().unwrap_or(0).max(name.len()))
        .collect();
    let is_number = |n: usize| rows.iter().all(|row| row[n].json.is_number() || row[n].json.is_null());
    let mut add = |cells: Vec<&str>| {
        let mut line = String::new();
        for (n, cell) in cells.into_iter().enumerate() {
            let width = widths[n];
            let _ = if is_number(n) { write!(line, "  {cell:>width$}") } else { write!(line, "  {cell:width$}") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    };
    add(columns.to_vec());
    rows.iter().for_each(|row| add(row.iter().map(|cell| &*cell.text).collect()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        let evil = "a\u{1b}[2J\u{9b}31m\u{202e}\r\n\u{7f}\\é\"";
        let shown = escaped(&[evil.as_bytes(), b"\xff\x00"].concat());
        assert_eq!(shown, "a\\u{1b}[2J\\u{9b}31m\\u{202e}\\r\\n\\u{7f}\\\\é\"\\xff\\0");
        assert_eq!(clean(evil), "a\\u{1b}[2J\\u{9b}31m\\u{202e}\\r\\n\\u{7f}\\é\"");
    }

    #[test]
    fn a_page_has_the_same_facts_in_both_forms() {
        let mut page = Page::default();
        page.fact("segment size", Cell::size(65_536)).fact("clean end", None::<u64>);
        page.list("done", ["one", "two"]).table("rows", &["from", "why"], vec![vec![7_u64.into(), "x".into()]]);
        page.table("none", &["from"], Vec::new());
        let long = ["word"; 30].join(" ");
        assert_eq!(wrapped(&long, 100).iter().map(String::len).collect::<Vec<_>>(), [99, 49]);
        assert_eq!(
            page.text(),
            "segment size  65536 B (64.00 KiB)\nclean end     -\ndone          one\n              two\n\n\
             rows\n  from  why\n     7  x\n"
        );
        let json = json!({
            "segment_size": 65_536, "clean_end": null, "done": ["one", "two"], "rows": [{ "from": 7, "why": "x" }],
            "none": []
        });
        assert_eq!(page.json(), json);
    }
}
