//! What the answers of a log amount to, counted.

use core::fmt::Write;

use crate::contestants::Contestant;
use crate::crash::Moment;
use crate::damage::Damage;
use crate::worker::Found;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every acknowledged record came back, and nothing that was not appended.
    Whole,
    /// The log was not opened, or a record could not be read: an error was returned.
    Refused,
    /// Only records of the group that was acknowledged last are missing, and no error was returned.
    LostLast,
    /// Earlier ones are missing, and no error was returned.
    Lost,
    /// A record that was never appended, or one twice, or out of order.
    Invented,
    Panicked,
    /// The process ended, or waited without end.
    Died,
}

const OUTCOMES: [Outcome; 7] = [
    Outcome::Whole,
    Outcome::Refused,
    Outcome::LostLast,
    Outcome::Lost,
    Outcome::Invented,
    Outcome::Panicked,
    Outcome::Died,
];

pub fn judge(found: &Found, moment: &Moment) -> Outcome {
    outcome(found, moment.submitted, moment.acknowledged, moment.acknowledged_before)
}

fn outcome(found: &Found, submitted: u64, acknowledged: u64, acknowledged_before: u64) -> Outcome {
    let numbers = match found {
        Found::Records(numbers) => numbers,
        Found::Refused(_) => return Outcome::Refused,
        Found::Panicked(_) => return Outcome::Panicked,
        Found::Ended(_) | Found::Hung => return Outcome::Died,
    };
    let Some(numbers) = numbers.iter().copied().collect::<Option<Vec<_>>>() else { return Outcome::Invented };
    if !numbers.is_sorted_by(|one, other| one < other) || numbers.last().is_some_and(|&last| last >= submitted) {
        return Outcome::Invented;
    }
    match (0..acknowledged).find(|number| numbers.binary_search(number).is_err()) {
        None => Outcome::Whole,
        Some(first) if first >= acknowledged_before => Outcome::LostLast,
        Some(_) => Outcome::Lost,
    }
}

/// Numbers as ranges, `x` for what is no record.
pub fn ranges(numbers: &[Option<u64>]) -> String {
    let runs = numbers.chunk_by(|one, other| one.is_some() && one.map(|one| one + 1) == *other);
    let run = |run: &[Option<u64>]| match (run.first().copied().flatten(), run.last().copied().flatten()) {
        (Some(first), Some(last)) if first < last => format!("{first}-{last}"),
        (Some(first), _) => first.to_string(),
        _ => "x".into(),
    };
    runs.map(run).collect::<Vec<_>>().join(" ")
}

/// The trials of one log with one kind of damage, or none.
pub struct Row {
    contestant: Contestant,
    damage: Option<Damage>,
    counts: [u64; OUTCOMES.len()],
}

impl Row {
    pub fn new(contestant: Contestant, damage: Option<Damage>) -> Self {
        Self { contestant, damage, counts: [0; OUTCOMES.len()] }
    }

    /// Counts a trial, and returns how many there were with this outcome.
    pub fn count(&mut self, outcome: Outcome) -> u64 {
        let count = &mut self.counts[outcome as usize];
        *count += 1;
        *count
    }

    fn get(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize]
    }

    fn trials(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Prints the tables, as Markdown.
pub fn print(rows: &[Row], seed: u64, trials: u64, recordings: u64) {
    println!("Seed {seed}; {trials} trials a row, of {recordings} recordings of each program.\n");
    println!("| power cut | trials | whole | refused | lost silently | invented | panicked | hung or ended |");
    println!("|---|---|---|---|---|---|---|---|");
    for row in rows.iter().filter(|row| row.damage.is_none()) {
        let lost = row.get(Outcome::LostLast) + row.get(Outcome::Lost);
        let [whole, refused, .., invented, panicked, died] = OUTCOMES.map(|outcome| row.get(outcome));
        let name = row.contestant.name();
        println!("| {name} | {} | {whole} | {refused} | {lost} | {invented} | {panicked} | {died} |", row.trials());
    }
    println!();
    let mut heading = String::from("| damage |");
    for row in rows.iter().filter(|row| row.damage.is_none()) {
        _ = write!(heading, " {} |", row.contestant.name());
    }
    println!("{heading}\n|---|{}", "---|".repeat(heading.matches('|').count() - 2));
    for damage in Damage::ALL {
        let mut line = format!("| {} |", damage.name());
        for row in rows.iter().filter(|row| row.damage == Some(damage)) {
            _ = write!(line, " {} |", cell(row));
        }
        println!("{line}");
    }
    println!("\nA cell: trials that were whole · refused · lost silently, only of the last group · lost silently,");
    println!("earlier ones; then what was invented, panicked, hung or ended, if anything was.");
}

fn cell(row: &Row) -> String {
    let mut text = OUTCOMES[..4].iter().map(|&outcome| row.get(outcome).to_string()).collect::<Vec<_>>().join(" · ");
    let rare = [(Outcome::Invented, "invented"), (Outcome::Panicked, "panicked"), (Outcome::Died, "hung or ended")];
    for (outcome, name) in rare {
        if row.get(outcome) > 0 {
            _ = write!(text, " · {} {name}", row.get(outcome));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_counts_as_what_it_is() {
        let records = |numbers: &[u64]| Found::Records(numbers.iter().copied().map(Some).collect());
        // Six were submitted, five acknowledged, the last two of them together.
        let judged = |found: Found| outcome(&found, 6, 5, 3);
        assert_eq!(judged(records(&[0, 1, 2, 3, 4])), Outcome::Whole);
        assert_eq!(judged(records(&[0, 1, 2, 3, 4, 5])), Outcome::Whole);
        assert_eq!(judged(records(&[0, 1, 2, 3])), Outcome::LostLast);
        assert_eq!(judged(records(&[0, 2, 3, 4])), Outcome::Lost);
        assert_eq!(judged(records(&[])), Outcome::Lost);
        assert_eq!(judged(records(&[0, 1, 2, 3, 4, 6])), Outcome::Invented);
        assert_eq!(judged(records(&[0, 1, 2, 3, 3, 4])), Outcome::Invented);
        assert_eq!(judged(records(&[0, 2, 1, 3, 4])), Outcome::Invented);
        assert_eq!(judged(Found::Records(vec![Some(0), None])), Outcome::Invented);
        assert_eq!(judged(Found::Refused(String::new())), Outcome::Refused);
        assert_eq!(judged(Found::Panicked(String::new())), Outcome::Panicked);
        assert_eq!([judged(Found::Hung), judged(Found::Ended(String::new()))], [Outcome::Died; 2]);
    }

    #[test]
    fn numbers_are_shown_as_ranges() {
        assert_eq!(ranges(&[Some(0), Some(1), Some(2), None, None, Some(5), Some(7)]), "0-2 x x 5 7");
    }
}
