//! Mistakes that can be planted, one at a time. Without one the model follows the rules of `docs/FORMAT.md`.

macro_rules! flaws {
    ($($name:ident: $what:literal,)*) => {
        /// A mistake that can be planted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Flaw {
            $(#[doc = concat!("Planted: ", $what, ".")] $name,)*
        }

        impl Flaw {
            /// Each of them, with what is wrong then.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $what),)*];
        }
    };
}

flaws! {
    // Rules of MANIFEST and the directory.
    ManifestOneSlot: "a MANIFEST update writes one slot, in turn, and not both",
    ManifestNotSyncedAtOpen: "after a kill a slot is written while the newest one may still be in the cache",
    ManifestInPlace: "MANIFEST is created in place and not by rename",
    ManifestBeforeFirst: "MANIFEST is created before the first segment",
    TmpNotSynced: "MANIFEST's temporary name is not synced before it is renamed",
    DirNotSynced: "a new segment's directory entry is not synced",
    DirNotSyncedAtOpen: "after a kill, segments that are visible are taken for durable",
    RecycleBeforeTrim: "segments are recycled before MANIFEST says that they are trimmed",
    TrimBeyondDurable: "the trim point may lie beyond the durable watermark",
    FirstNotKnown: "MANIFEST does not hold the number of the first batch after a trim",
    FirstEpochNotKnown: "MANIFEST does not hold the epoch of the first batch after a trim",
    SetAsideBeforeManifest: "the damaged rest is moved aside before the new epoch is durable",
    EpochsNotCut: "setting aside leaves epochs in MANIFEST that start behind the cut",
    KnownNotLowered: "setting damage aside does not lower known durable",
    // Rules of what a promise is.
    PredecessorEndPromises: "the segment header holds the predecessor's end, and that counts as a promise",
    PromiseNotCapped: "a promise counts also beyond the start of the epoch that replaced it",
    PromiseIgnored: "the first bad batch is the end",
    EpochStartNoPromise: "the start of the newest epoch, and known durable, are no promises",
    IntactIsDamage: "an intact batch that follows is proof of damage",
    DurableTooNew: "the durable address in a header is one batch too new",
    DurableZero: "the durable address in a header is always 0",
    // Rules of what is accepted.
    NoSalt: "epochs have no random salt",
    HigherEpochIgnored: "a header of a later epoch than MANIFEST knows proves nothing",
    OtherSaltIgnored: "a header of a known epoch with another salt proves nothing",
    EpochNotSynced: "the new epoch is not synced before the first append",
    EpochNotRaised: "a cut does not begin an epoch",
    SmallerEpochAccepted: "a smaller epoch is accepted",
    NoOpensFlag: "below the epochs that MANIFEST keeps, the epoch may rise at any batch",
    NoLink: "number and predecessor are not checked",
    NoAddress: "the address is neither checked nor in the checksums",
    FillerUnchecked: "zero sectors are not covered by the checksums",
    TableUnchecked: "block checksums are not checked",
    ForeignAccepted: "the log id is not checked",
    SegmentHeadDecides: "a batch is not accepted in a segment with a bad header",
    SkipBySize: "a reader computes the skip to the next segment from its own buffer size",
    OpenUnproven: "a fast open starts at the last segment that begins with a good batch",
    ShortFileIsEnd: "where a segment file ends the log ends, whatever promises more",
    ShortFileIsDamage: "a segment file that is shorter than a segment is damage",
    // Rules of writing.
    LastBeforeNext: "a batch flagged last is written before the next segment is ready; a missing one proves nothing",
    AcceptedNotSynced: "what recovery has accepted is not synced before MANIFEST promises it",
    OnlyNewestSynced: "segment k+1 is acknowledged before k is synced",
    AckWithoutSync: "what is written counts as durable",
    SyncCoversLater: "the watermark moves over writes that came back after the sync began",
    TwoSyncs: "the watermark takes a durable write's end although earlier writes are not durable",
    FailedWriteCounts: "a failed write counts as written",
    FailedWriteSkipped: "a failed write is left out, and what is behind it is acknowledged",
    FailedSyncRetried: "a failed sync is tried again, and its success counts",
    ClosedAfterFailure: "a log that has failed is closed: MANIFEST says where it ends",
    // Rules of truncations.
    TruncationIgnored: "a truncation makes nothing void",
    TruncationOpenEnded: "a truncation also makes void what is appended behind it",
    TruncationUnaccepted: "a truncation counts although its batch is not accepted",
    TruncationVoided: "a truncation that lies in the range of a later one does not count",
    // Rules of snapshots at segment heads.
    SnapshotIgnored: "a named value that was set in a trimmed segment is not taken from a snapshot",
    SnapshotStale: "a snapshot lacks the newest change before it",
    TrimBeforeSnapshot: "a segment is trimmed before the snapshot behind it is durable",
}

impl Flaw {
    /// Second lines of defence: while all other rules are kept, no scenario needs them.
    ///
    /// - `NoLink`: at one address, one epoch writes one batch. So address, epoch and salt, which are in the checksums,
    ///   already leave no other batch that could stand there.
    /// - `FirstNotKnown`: the same, of the first batch after a trim, whose epoch `MANIFEST` holds.
    /// - `NoOpensFlag`: an epoch begins where the log was cut, and what an older epoch has left there is not whole. So
    ///   a later epoch whose number and link fit rises only there.
    pub const SPARE: &'static [Self] = &[Self::NoLink, Self::FirstNotKnown, Self::NoOpensFlag];
}
