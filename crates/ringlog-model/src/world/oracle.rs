//! What must hold, whatever has happened.

use super::{Batch, Check, Figures, World};
use crate::disk::Image;
use crate::format::{SECTORS, Sector};
use crate::recovery::{Judged, Verdict};

impl World {
    /// What was accepted is exactly what was submitted there: nothing that was cut, trimmed or never submitted.
    pub(super) fn check_content(&self, j: &Judged, old_manifest: bool) -> Check {
        let Some(first) = j.accepted.first() else { return Ok(()) };
        let Some(from) = self.truth.chain.iter().position(|b| b.base == first.head.address) else {
            return Err(self.fail("b", format!("accepted at {}: no batch is there", first.head.address)));
        };
        for (n, a) in j.accepted.iter().enumerate() {
            match self.truth.chain.get(from + n) {
                Some(b) if b.base == a.head.address && b.sectors == a.sectors && b.next == a.next => {}
                Some(b) => {
                    return Err(self.fail(
                        "b",
                        format!(
                            "accepted at {} {:?}, but it was {} {:?}",
                            a.head.address, a.sectors[0], b.base, b.sectors[0]
                        ),
                    ));
                }
                None => {
                    return Err(
                        self.fail("b", format!("accepted at {}: behind the end {:?}", a.head.address, a.sectors[0]))
                    );
                }
            }
        }
        let trim = j.manifest.as_ref().unwrap().trim;
        let end = j.accepted.last().map_or(0, |last| last.next);
        let within = |b: &&Batch| b.base >= first.head.address.max(trim) && b.base < end;
        let is_shown = |b: &&Batch| b.is_data && b.void_by.iter().all(|&by| by >= end);
        let expected: Vec<u64> = self.truth.chain.iter().filter(within).filter(is_shown).map(|b| b.base).collect();
        let shown = j.shown(&self.d);
        if shown != expected {
            return Err(self.fail("b", format!("replay shows {shown:?} instead of {expected:?}")));
        }
        let value = self.truth.chain.iter().rev().filter(|b| b.base < end).find_map(|b| b.value);
        if j.value(&self.d) != value {
            return Err(self.fail("b", format!("the value is {:?} instead of {value:?}", j.value(&self.d))));
        }
        if !old_manifest && !self.truth.trims.contains(&trim) {
            return Err(self.fail("b", format!("trimmed to one of {:?}, recovered {trim}", self.truth.trims)));
        }
        Ok(())
    }

    /// After a legal crash.
    pub(super) fn check_legal(&self, j: &Judged, f: &mut Figures) -> Check {
        match j.verdict {
            Verdict::Fresh => {
                if self.truth.acknowledged > 0 {
                    return Err(self.fail("a", "the log is gone".into()));
                }
            }
            Verdict::End { at, .. } => {
                self.check_content(j, false)?;
                if at < self.truth.acknowledged {
                    return Err(
                        self.fail("a", format!("acknowledged to {}, recovered to {at}", self.truth.acknowledged))
                    );
                }
            }
            ref v => return Err(self.fail("c", format!("a legal crash, judged {v:?}"))),
        }
        f.fast_checks += 1;
        let fast = self.judge(true);
        if fast.verdict != j.verdict || fast.number != j.number || fast.previous != j.previous {
            return Err(self
                .fail("fast", format!("{:?} {} instead of {:?} {}", fast.verdict, fast.number, j.verdict, j.number)));
        }
        f.fast_jumps += u64::from(fast.accepted.len() < j.accepted.len());
        Ok(())
    }

    /// What is below the highest promise that is still there, and no longer as it was.
    pub(super) fn must_be_damage(&self, image: &Image, j: &Judged, newest_sequence: u64) -> Option<(u64, u64)> {
        let m = j.manifest.as_ref()?;
        let mut promised = 0;
        if m.sequence == newest_sequence {
            promised = m.known_durable.max(m.clean.unwrap_or(0));
        }
        for b in &self.truth.chain {
            if let (Some([Sector::First { head, .. }, _]), Sector::First { head: was, .. }) =
                (self.d.block(image, b.base), b.sectors[0])
                && head == was
                && b.base >= m.trim
            {
                promised = promised.max(b.watermark);
            }
        }
        for b in &self.truth.chain {
            if b.base >= m.trim && b.base < promised {
                let there = (0..(b.sectors.len() / SECTORS) as u64).all(|n| {
                    let was = &b.sectors[n as usize * SECTORS..][..SECTORS];
                    self.d.block(image, b.base + n).is_some_and(|s| s == was)
                });
                if !there {
                    return Some((b.base, promised));
                }
            }
        }
        None
    }
}
