//! `ringlog repair`: makes a log good again, and deletes nothing.

use std::fs::{self, File};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ringlog::OpenError;
use ringlog::directory::{Directory, DiskDirectory};
use ringlog::format::Manifest;
use ringlog::manifest::NAME;
use ringlog::recovery::{self, Recover, Verdict, Verify};
use ringlog::segment::{aside_name, below, file_name, parse_name};

use crate::output::{Failure, Output, Page, Status};
use crate::rebuild::Plan;
use crate::source::{Judgement, Source};

/// What is done about damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnDamage {
    /// The log ends before the damage; what is behind stays in files named aside-…
    SetAside,
    /// The log goes on behind the damage, which becomes a gap; for replicas, which can fetch what is missing
    Skip,
}

/// Make a log good again: cut a torn tail, set damage aside, rebuild a MANIFEST that is lost
///
/// Nothing is deleted: what leaves the log is moved or copied to files named aside-…, in the same directory, and each
/// of these is reported. A log that is good is not touched, and one that a process has open is refused.
///
/// Without MANIFEST its key is lost, too: then the signatures of batches cannot be checked, only their structure,
/// numbers, links and checksums. The batches that pass are signed again, with a new key.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Directory of the log
    dir: PathBuf,
    /// What is done about damage
    #[arg(long, value_enum, default_value_t = OnDamage::SetAside)]
    on_damage: OnDamage,
    /// Rebuild the log from its batches also if MANIFEST can be read, but is older than the log or contradicts itself:
    /// when the right one cannot be restored
    #[arg(long)]
    rebuild: bool,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Repair {
    pub(crate) fn run(&self, output: &mut Output) -> Result<Status, Failure> {
        let mut source = Source::open(&self.dir)?;
        if source.is_open_elsewhere() {
            let dir = self.dir.display();
            return Err(Failure::new(format!("{dir}: a process has the log open; close it there first")));
        }
        source.show_progress(1);
        let judged = source.judge(&Verify::new());
        source.done();
        let mut page = Page::default();
        let (before, done) = match judged {
            Ok((judged, manifest)) => {
                let done = match &judged.report.verdict {
                    Verdict::Torn(_) | Verdict::Damaged(_) if self.dry_run => self.plan(&judged),
                    Verdict::Torn(_) | Verdict::Damaged(_) => self.mend(&judged, &manifest)?,
                    _ => vec!["nothing: the log is good".into()],
                };
                page.fact("found", judged.proof());
                (judged.status(), done)
            }
            Err(error) if self.can_rebuild(&error) => {
                page.fact("found", error.to_string());
                let plan = Plan::new(&self.dir)?;
                let done = if self.dry_run { plan.say() } else { plan.carry_out()? };
                page.list("not known", plan.unknown());
                (Status::Unjudged, done)
            }
            Err(error) => return Err(source.here()(error)),
        };
        page.list(if self.dry_run { "would do" } else { "done" }, done);
        let mut status = before;
        if !self.dry_run {
            let (judged, _) = source.judge(&Verify::new()).map_err(source.here())?;
            page.fact("records", judged.report.records)
                .fact("first", judged.report.first)
                .fact("end", judged.report.end);
            judged.show(&source, &mut page);
            status = judged.status();
        }
        output.page(&page)?;
        Ok(status)
    }

    /// Whether the log can be rebuilt without what MANIFEST says.
    fn can_rebuild(&self, error: &OpenError) -> bool {
        match error {
            OpenError::NoManifest { .. } | OpenError::BadManifest { .. } => true,
            OpenError::OldManifest { .. } | OpenError::Contradiction { .. } => self.rebuild,
            _ => false,
        }
    }

    /// Cuts a torn tail, or deals with damage.
    fn mend(&self, judged: &Judgement, manifest: &Manifest) -> Result<Vec<String>, Failure> {
        let directory = DiskDirectory::open(&self.dir)?;
        let names = directory.list()?;
        let lock = Recover::lock(&directory)?;
        // Each opening changes it.
        if Source::open(&self.dir)?.manifest()?.sequence != manifest.sequence {
            return Err(Failure::new("the log has changed; start again"));
        }
        // Opening changes MANIFEST, repairs bad headers in their place, and removes what was trimmed.
        self.keep(manifest.sequence, NAME)?;
        judged.report.bad_segment_headers.iter().try_for_each(|name| self.keep(manifest.sequence, name))?;
        for name in below(&directory, manifest.trim, manifest.segment_size)? {
            directory.rename(&name, &aside_name(manifest.sequence, &name))?;
        }

        let on_damage = match self.on_damage {
            OnDamage::SetAside => recovery::OnDamage::SetAside,
            OnDamage::Skip => recovery::OnDamage::Skip,
        };
        let mut opened = Recover::new().must_exist(true).on_damage(on_damage).open_locked(&directory, lock)?;
        let end = opened.report().end;
        let mut done = vec![match &judged.report.verdict {
            Verdict::Torn(_) => format!("cut the log at {end}, where the torn write begins"),
            _ if self.on_damage == OnDamage::Skip => {
                let gaps = opened.report().gaps.iter().map(|gap| format!("{}..{}", gap.start, gap.end));
                format!("accepted as gaps: {}; the log ends at {end}", gaps.collect::<Vec<_>>().join(", "))
            }
            _ => format!("ended the log at {end}, before the damage"),
        }];
        // What stands behind the end is still there, and the next writer will overwrite it.
        self.keep(manifest.sequence, &file_name(end.get() - end.get() % manifest.segment_size))?;
        for name in directory.list()? {
            if parse_name(&name).is_some_and(|base| base > end.get()) {
                directory.rename(&name, &aside_name(manifest.sequence, &name))?;
            }
        }
        directory.sync_dir().map_err(Failure::at("cannot sync the directory"))?;
        opened.close(&directory, end.get())?;
        let mut made = directory.list()?;
        made.retain(|name| !names.contains(name));
        made.sort();
        let said =
            |name: String| if name.starts_with("aside-") { format!("kept {name}") } else { format!("made {name}") };
        done.extend(made.into_iter().map(said));
        Ok(done)
    }

    /// Copies a file as it is before anything is changed, unless it is copied already.
    fn keep(&self, number: u64, name: &str) -> Result<(), Failure> {
        let (from, to) = (self.dir.join(name), self.dir.join(aside_name(number, name)));
        if to.exists() || !from.exists() {
            return Ok(());
        }
        let half = self.dir.join(format!("half-{name}"));
        let copied = fs::copy(&from, &half).and_then(|_| File::open(&half)?.sync_all());
        copied.and_then(|()| fs::rename(half, to)).map_err(Failure::at(format!("cannot copy {name}")))
    }

    /// What [`mend`](Self::mend) would do.
    fn plan(&self, judged: &Judgement) -> Vec<String> {
        let end = judged.report.end;
        match (&judged.report.verdict, self.on_damage) {
            (Verdict::Damaged(damage), OnDamage::SetAside) => vec![
                format!("end the log at {end}; acknowledged records up to {} leave it", damage.range.end),
                format!("copy {}, and move the segments behind it, to files named aside-…", damage.file),
            ],
            (Verdict::Damaged(damage), OnDamage::Skip) => {
                vec![format!("accept a gap from {end} up to the next intact batch, or to {}", damage.range.end)]
            }
            _ => vec![format!("cut the log at {end}, and copy what stands there to a file named aside-…")],
        }
    }
}
