//! Bugs of `ringlog`. Those of a writer are in the log itself where one of its tests sees them, and otherwise in the
//! reference writer, whose every crash image is judged.

use super::switched::Bug;

/// The code that `bugs!` lists: what is wrong, the test that must notice, and each place, as in [`Bug`].
macro_rules! bugs {
    ($($what:literal by $killer:literal { $($file:literal: $from:literal => $to:literal)+ })*) => {
        &[$(Bug { what: $what, killer: $killer, changes: &[$(($file, $from, $to)),+] }),*]
    };
}

/// What is read back.
const READING: &[Bug] = bugs! {
    "skip to the next segment by the reader's own measure" by "images" {
        "ringlog/recovery/chain.rs": "walk.next = source.manifest.behind(&header);" =>
            "let behind = walk.next + header.layout().len as u64;
            walk.next = if PLANTED {
                if behind + 4096 > reader.end() { reader.end() } else { behind }
            } else { source.manifest.behind(&header) };"
    }
    "replay what stands behind the last batch of a segment"
        by "log a_log_goes_on_in_a_new_segment_when_it_is_rolled_with_or_without_records" {
        "ringlog/reading/forward.rs": "self.next = manifest.behind(&header);" =>
            "self.next = if PLANTED { at + header.layout().len as u64 } else { manifest.behind(&header) };"
    }
    "accept a smaller epoch" by "rules a_tail_that_was_cut_off_never_comes_back" {
        "ringlog/format/manifest.rs":
            "Some(epoch) => (epoch.epoch, epoch.salt) == (header.epoch, header.salt)," =>
            "Some(epoch) => PLANTED || (epoch.epoch, epoch.salt) == (header.epoch, header.salt),"
    }
    "have the epoch rise at any batch" by "rules more_epochs_than_manifest_keeps_are_still_accepted_in_order" {
        "ringlog/format/manifest.rs": "(epoch < header.epoch && header.flags.opens_epoch)" =>
            "(epoch < header.epoch && (header.flags.opens_epoch || PLANTED))"
    }
    "never compare the number of a batch" by "rules after_a_trim_the_first_batch_must_be_the_one_that_manifest_names" {
        "ringlog/recovery/chain.rs": "header.number == self.number" => "(header.number == self.number || PLANTED)"
    }
    "never compare the predecessor of a batch"
        by "rules after_a_trim_the_first_batch_must_be_the_one_that_manifest_names" {
        "ringlog/recovery/chain.rs": "&& header.previous == self.previous" =>
            "&& (header.previous == self.previous || PLANTED)"
    }
    "accept the batches of a recycled segment" by "rules a_segment_under_another_name_proves_nothing" {
        "ringlog/format/batch.rs": "if header.address != address {" => "if header.address != address && !PLANTED {"
    }
    "leave the address out of the checksums"
        by "rules a_bad_segment_header_never_hides_a_batch_and_is_repaired_when_written_to" {
        "ringlog/format/checksum.rs": "digest.update(&address.to_le_bytes());" =>
            "if !PLANTED { digest.update(&address.to_le_bytes()); }"
    }
    "accept the segment of another log" by "rules a_segment_of_another_log_is_refused_and_never_cut" {
        "ringlog/recovery/judge.rs": "Ok(header) if header.log_id != manifest.log_id => {" =>
            "Ok(header) if header.log_id != manifest.log_id && !PLANTED => {"
    }
    "believe a header, and its length, before its signature" by "lib a_header_under_another_key_is_refused" {
        "ringlog/format/batch.rs": "if key.sign(&bytes[..64]) != u64_at(bytes, 64) {" =>
            "if key.sign(&bytes[..64]) != u64_at(bytes, 64) && !PLANTED {"
    }
    "believe the length of a record before anything has checked it" by "fuzz the_files_of_the_corpus" {
        "ringlog/recovery/batch.rs": "if header.padded_len() > left {" => "if header.padded_len() > left && !PLANTED {"
    }
    "believe a slot of MANIFEST before its checksum"
        by "rules a_crash_while_the_manifest_of_a_killed_writer_is_replaced_leaves_a_whole_slot" {
        "ringlog/format/manifest.rs": "if crc64(&bytes[..CRC]) != u64_at(bytes, CRC) {" =>
            "if crc64(&bytes[..CRC]) != u64_at(bytes, CRC) && !PLANTED {"
    }
    "skip filler unchecked" by "images" {
        "ringlog/recovery/batch.rs":
            "if sums.block(base + (start + n * BLOCK) as u64, block) != u64_at(&expected, n * SUM_LEN) {" =>
            "if sums.block(base + (start + n * BLOCK) as u64, block) != u64_at(&expected, n * SUM_LEN)
                && !(PLANTED && block.chunks(512).any(is_zero)) {"
    }
    "check no block of a batch" by "rules a_bad_last_batch_is_torn_and_one_below_a_promise_is_damage" {
        "ringlog/recovery/batch.rs": "for (n, block) in bytes.chunks(BLOCK).enumerate() {" =>
            "for (n, block) in bytes.chunks(BLOCK).enumerate().filter(|_| !PLANTED) {"
    }
    "check no table of a batch" by "rules a_batch_over_many_blocks_is_whole_or_refused_at_the_first_bad_block" {
        "ringlog/recovery/batch.rs": "if !table_is_right(reader, &sums, base, table, layout.blocks)? {" =>
            "if !PLANTED && !table_is_right(reader, &sums, base, table, layout.blocks)? {"
    }
    "check no padding of a batch" by "rules a_batch_over_many_blocks_is_whole_or_refused_at_the_first_bad_block" {
        "ringlog/recovery/batch.rs": "Ok((!is_zero(padding)).then_some" =>
            "Ok((!is_zero(padding) && !PLANTED).then_some"
    }
    "show truncated records" by "rules a_truncation_makes_the_records_between_its_address_and_itself_void" {
        "ringlog/recovery/batch.rs": "self.void(u64::from_le_bytes(from)..address)?;" =>
            "if !PLANTED { self.void(u64::from_le_bytes(from)..address)?; }"
    }
    "show a long record before its last part" by "following a_long_record_with_a_damaged_part_is_not_shown" {
        "ringlog/reading/records.rs": "if open.bytes.len() as u64 != open.len {" =>
            "if !PLANTED && open.bytes.len() as u64 != open.len {"
    }
    "replay what has changed since the verdict" by "rules replay_stops_where_the_callers_function_fails" {
        "ringlog/reading/batch.rs": "let content = check_batch(&header, self.bytes(at, len));" =>
            "let content = check_batch(&header, self.bytes(at, len)).filter(|_| !PLANTED);"
    }
    "give the payloads of a long group addresses that are other records'"
        by "memory each_payload_of_a_group_longer_than_a_buffer_has_the_address_of_its_own_bytes" {
        "ringlog/reading/records.rs": "let lsn = if at == 0 { group.lsn } else { Lsn::new(address) };" =>
            "let address = if PLANTED { group.lsn.get() + 8 + at as u64 } else { address };
            let lsn = if at == 0 { group.lsn } else { Lsn::new(address) };"
    }
};

/// The verdict.
const JUDGING: &[Bug] = bugs! {
    "take the first bad batch for the end" by "rules a_bad_last_batch_is_torn_and_one_below_a_promise_is_damage" {
        "ringlog/recovery/judge.rs": "if let Some((promise, at)) = scan.top {" =>
            "if let Some((promise, at)) = scan.top.filter(|_| !PLANTED) {"
    }
    "take an intact batch that follows for a proof of damage"
        by "rules an_intact_batch_behind_a_hole_is_no_proof_of_damage" {
        "ringlog/recovery/judge.rs": "newest = newest.max(scan.newest);" =>
            "newest = newest.max(scan.newest);
            if PLANTED { raise(scan.newest.unwrap_or(0), Proof::KnownDurable); }"
    }
    "take the start of the newest epoch for no promise"
        by "rules known_durable_clean_end_and_the_newest_epoch_are_promises" {
        "ringlog/recovery/judge.rs": "let mut promised = (manifest.newest_epoch().start, Proof::EpochStart);" =>
            "let mut promised = (if PLANTED { 0 } else { manifest.newest_epoch().start }, Proof::EpochStart);"
    }
    "take the known durable address for no promise"
        by "rules after_a_trim_the_first_batch_must_be_the_one_that_manifest_names" {
        "ringlog/recovery/judge.rs": "raise(manifest.known_durable, Proof::KnownDurable);" =>
            "raise(if PLANTED { 0 } else { manifest.known_durable }, Proof::KnownDurable);"
    }
    "take a clean end for no promise" by "rules known_durable_clean_end_and_the_newest_epoch_are_promises" {
        "ringlog/recovery/judge.rs": "raise(manifest.clean_end.unwrap_or(0), Proof::CleanEnd);" =>
            "raise(manifest.clean_end.filter(|_| !PLANTED).unwrap_or(0), Proof::CleanEnd);"
    }
    "have a promise count beyond the epoch that replaced it" by "rules a_promise_ends_where_a_newer_epoch_starts" {
        "ringlog/format/manifest.rs":
            "let replaced = self.epochs.iter().find(|epoch| epoch.epoch > header.epoch);" =>
            "let replaced = self.epochs.iter().find(|epoch| epoch.epoch > header.epoch && !PLANTED);"
    }
    "have a promise count below the start of its epoch"
        by "lib a_promise_ends_at_the_next_epoch_and_counts_only_in_its_own" {
        "ringlog/format/manifest.rs": "|| header.address < own.start)" => "|| (header.address < own.start && !PLANTED))"
    }
    "take a missing segment for the end" by "rules a_missing_segment_is_damage_even_without_a_promise" {
        "ringlog/recovery/judge.rs": "if promised > end || missing || cut {" =>
            "if promised > end || (missing && !PLANTED) || cut {"
    }
    "believe no segment that it was longer" by "adverse a_file_that_was_cut" {
        "ringlog/recovery/judge.rs": "self.cut.insert(header.number);" =>
            "if !PLANTED { self.cut.insert(header.number); }"
    }
    "take a closed log whose file is shorter for damaged" by "adverse a_file_that_was_cut" {
        "ringlog/recovery/judge.rs": "let cut = source.cut.contains(&segment) && manifest.clean_end != Some(end);" =>
            "let cut = source.cut.contains(&segment) && (PLANTED || manifest.clean_end != Some(end));"
    }
    "keep the mark of a file that was cut and set aside" by "adverse a_file_that_was_cut" {
        "ringlog/segment.rs": "let keeps = is_marked && " => "let keeps = is_marked && PLANTED || is_marked && "
    }
    "mark a segment as whole before its length is on stable storage" by "images" {
        "ringlog/segment.rs":
            "directory.extend(&file, len, written).map_err(OpenError::io(\"extend\", name))?;
            directory.sync_file(&file).map_err(OpenError::io(\"sync\", name))?;" =>
            "directory.extend(&file, len, written).map_err(OpenError::io(\"extend\", name))?;
            if !PLANTED { directory.sync_file(&file).map_err(OpenError::io(\"sync\", name))?; }"
    }
    "begin at a segment without a snapshot" by "rules fast_opening_begins_where_a_snapshot_says_what_was_before" {
        "ringlog/recovery/judge.rs": "if found.tally.values.snapshot().is_some() || candidates.below == 0 {" =>
            "if PLANTED || found.tally.values.snapshot().is_some() || candidates.below == 0 {"
    }
    "take a snapshot for complete to where it stands"
        by "rules fast_opening_begins_where_a_snapshot_says_what_was_before" {
        "ringlog/recovery/batch.rs": "if snapshot.complete_to != address {" =>
            "if snapshot.complete_to != address && !PLANTED {"
    }
    "look for promises only behind the segment of the end"
        by "rules a_bad_last_batch_is_torn_and_one_below_a_promise_is_damage" {
        "ringlog/recovery/judge.rs": "[HeaderScan::of(source, end)?]" =>
            "[if PLANTED { HeaderScan::default() } else { HeaderScan::of(source, end)? }]"
    }
    "ignore a batch of an epoch that MANIFEST does not know" by "rules a_manifest_older_than_the_log_is_refused" {
        "ringlog/recovery/scan.rs": "if header.epoch > newest.epoch {" => "if header.epoch > newest.epoch && !PLANTED {"
    }
    "ignore a batch with another salt" by "rules two_copies_that_both_went_on_are_not_mixed" {
        "ringlog/recovery/scan.rs": "epoch.epoch == header.epoch && epoch.salt != header.salt)" =>
            "epoch.epoch == header.epoch && epoch.salt != header.salt && !PLANTED)"
    }
    "expect another number after a trim" by "rules a_bad_last_batch_is_torn_and_one_below_a_promise_is_damage" {
        "ringlog/recovery/judge.rs": "Expected { number: first.number, previous: first.previous, before: None," =>
            "Expected { number: first.number + u64::from(PLANTED), previous: first.previous, before: None,"
    }
    "expect no epoch after a trim" by "rules after_a_trim_the_first_batch_must_be_the_one_that_manifest_names" {
        "ringlog/recovery/judge.rs": "exactly: first.epoch }" => "exactly: first.epoch.filter(|_| !PLANTED) }"
    }
    "refuse the batches of a segment with a bad header"
        by "rules a_bad_segment_header_never_hides_a_batch_and_is_repaired_when_written_to" {
        "ringlog/recovery/judge.rs":
            "if base.is_multiple_of(size) && base / size >= manifest.first_segment() {" =>
            "if base.is_multiple_of(size) && base / size >= manifest.first_segment()
                && !(PLANTED && headers.bad.contains(&name)) {"
    }
    "make a log anew where segments hold data" by "rules without_manifest_any_byte_in_a_segment_is_refused" {
        "ringlog/recovery/judge.rs": "if base != 0 || !is_zero(&block[..read]) {" =>
            "if !PLANTED && (base != 0 || !is_zero(&block[..read])) {"
    }
    "begin a fast opening where nothing is proven" by "images" {
        "ringlog/recovery/judge.rs": "|| top < start ||" => "|| (top < start && !PLANTED) ||"
    }
    "begin a fast opening behind what does not lead there"
        by "rules fast_opening_reads_one_segment_and_finds_the_same_end" {
        "ringlog/recovery/judge.rs": "if leads_here {" => "if leads_here || PLANTED {"
    }
    "see no torn batch by its checksums alone" by "rules a_batch_without_its_header_is_torn_by_its_checksums" {
        "ringlog/recovery/judge.rs": "Ok(found.then_some(Evidence::Table" =>
            "Ok((found && !PLANTED).then_some(Evidence::Table"
    }
    "take a batch of any epoch for a torn one" by "rules a_promise_ends_where_a_newer_epoch_starts" {
        "ringlog/recovery/scan.rs": "if (header.epoch, header.salt) == (newest.epoch, newest.salt) {" =>
            "if PLANTED || (header.epoch, header.salt) == (newest.epoch, newest.salt) {"
    }
    "keep behind a gap what was never acknowledged" by "rules what_was_never_acknowledged_is_not_kept_behind_a_gap" {
        "ringlog/recovery/judge.rs": "min(promised + BLOCK as u64)" =>
            "min(if PLANTED { u64::MAX } else { promised + BLOCK as u64 })"
    }
    "use addresses of a gap again" by "rules" {
        "ringlog/recovery/judge.rs": "Ok(Some(Gap { start: chain.end, end: promised, number" =>
            "Ok(Some(Gap { start: chain.end, end: if PLANTED { chain.end + 4096 } else { promised }, number"
        "ringlog/recovery/judge.rs": "if gap.end == promised && gap.number" =>
            "if (PLANTED || gap.end == promised) && gap.number"
    }
    "accept any batch behind a gap" by "rules the_batch_behind_an_old_gap_must_be_the_one_that_manifest_names" {
        "ringlog/recovery/chain.rs": "exactly: Some((gap.epoch, gap.salt)) }" =>
            "exactly: Some((gap.epoch, gap.salt)).filter(|_| !PLANTED) }"
    }
};

/// Files, `MANIFEST`, and what an opening does in which order.
const OPENING: &[Bug] = bugs! {
    "give an epoch no salt" by "rules two_copies_that_both_went_on_are_not_mixed" {
        "ringlog/recovery/open.rs": ".reopened(end, self.entropy.number()?)?" =>
            ".reopened(end, if PLANTED { 0 } else { self.entropy.number()? })?"
    }
    "write one slot of MANIFEST per update" by "lib after_a_failed_update_no_other_content_takes_its_number" {
        "ringlog/manifest.rs": "for slot in [1 - self.newest, self.newest] {" =>
            "for slot in [1 - self.newest, self.newest].into_iter().take(if PLANTED { 1 } else { 2 }) {"
    }
    "write the newest slot of MANIFEST first" by "lib what_an_interrupted_update_left_is_not_lost_by_the_next_one" {
        "ringlog/manifest.rs": "let at = (slot * SLOT_LEN) as u64;" =>
            "let slot = if PLANTED { 1 - slot } else { slot }; let at = (slot * SLOT_LEN) as u64;"
    }
    "append before the cut is on stable storage" by "rules a_closed_log_is_clean_and_one_without_close_is_unclosed" {
        "ringlog/manifest.rs": "self.sync(directory)?;" => "if !PLANTED { self.sync(directory)?; }"
    }
    "update MANIFEST again although an update has failed"
        by "lib after_a_failed_update_no_other_content_takes_its_number" {
        "ringlog/manifest.rs": "if mem::replace(&mut self.has_failed, true) {" =>
            "if mem::replace(&mut self.has_failed, true) && !PLANTED {"
    }
    "sync no new MANIFEST before it has its name"
        by "rules a_bad_segment_header_never_hides_a_batch_and_is_repaired_when_written_to" {
        "ringlog/manifest.rs": "directory.sync_file(&file).map_err(io(\"sync\", TEMPORARY))?;" =>
            "if !PLANTED { directory.sync_file(&file).map_err(io(\"sync\", TEMPORARY))?; }"
    }
    "make MANIFEST in its place" by "lib a_crash_at_any_step_of_creation_leaves_no_manifest_or_a_whole_one" {
        "ringlog/manifest.rs": "let file = directory.create(TEMPORARY).map_err(io(\"create\", TEMPORARY))?;" =>
            "let file = directory.create(if PLANTED { NAME } else { TEMPORARY }).map_err(io(\"create\", TEMPORARY))?;"
        "ringlog/manifest.rs": "directory.rename(TEMPORARY, NAME).map_err(io(\"rename\", TEMPORARY))?;" =>
            "if !PLANTED { directory.rename(TEMPORARY, NAME).map_err(io(\"rename\", TEMPORARY))?; }"
    }
    "make MANIFEST before the first segment" by "images" {
        "ringlog/recovery/open.rs":
            "ensure(directory, &header)?; let manifest = ManifestFile::create(directory, content)?;" =>
            "if !PLANTED { ensure(directory, &header)?; }
            let manifest = ManifestFile::create(directory, content)?;
            if PLANTED { ensure(directory, &header)?; }"
    }
    "take a visible MANIFEST for durable when a log is opened"
        by "rules a_crash_while_the_manifest_of_a_killed_writer_is_replaced_leaves_a_whole_slot" {
        "ringlog/recovery/open.rs": "manifest.sync(directory)?; let content = manifest.content();" =>
            "if !PLANTED { manifest.sync(directory)?; } let content = manifest.content();"
    }
    "promise what recovery accepts without syncing it" by "rules opening_syncs_what_it_found_before_it_promises_it" {
        "ringlog/recovery/open.rs":
            "let file = directory.open(&name, true).map_err(OpenError::io(\"open\", &name))?;
            directory.sync_file(&file).map_err(OpenError::io(\"sync\", &name))?;" =>
            "let file = directory.open(&name, true).map_err(OpenError::io(\"open\", &name))?;
            if !PLANTED { directory.sync_file(&file).map_err(OpenError::io(\"sync\", &name))?; }"
    }
    "append behind a torn batch in the old epoch" by "rules a_manifest_older_than_the_log_is_refused" {
        "ringlog/manifest.rs": "next.epochs.push(Epoch { epoch, salt, start: end });" =>
            "if !PLANTED { next.epochs.push(Epoch { epoch, salt, start: end }); }
            else if next.epochs.is_empty() { next.epochs.push(self.epochs[0]); }"
    }
    "keep epochs that start behind the cut" by "rules a_gap_that_meets_an_older_one_takes_its_place" {
        "ringlog/manifest.rs": "next.epochs.retain(|epoch| epoch.start < end);" =>
            "next.epochs.retain(|epoch| epoch.start < end || PLANTED);"
    }
    "keep the known durable address when damage is set aside" by "images" {
        "ringlog/manifest.rs": "next.known_durable = end;" => "if !PLANTED { next.known_durable = end; }"
    }
    "keep the clean end when a log is opened" by "rules a_closed_log_is_clean_and_one_without_close_is_unclosed" {
        "ringlog/manifest.rs": "next.clean_end = None;" => "if !PLANTED { next.clean_end = None; }"
    }
    "keep the epoch of the first batch when that is cut off" by "images" {
        "ringlog/manifest.rs": "next.first.epoch = None;" => "if !PLANTED { next.first.epoch = None; }"
    }
    "keep the epoch behind a gap that ends at the cut"
        by "rules skipping_lost_segments_gives_no_durable_address_again" {
        "ringlog/manifest.rs": "(gap.epoch, gap.salt) = (epoch, salt);" =>
            "if !PLANTED { (gap.epoch, gap.salt) = (epoch, salt); }"
    }
    "move damage aside before MANIFEST says so" by "images" {
        "ringlog/recovery/open.rs": "copy_aside(directory, old.sequence, &here.file_name())?;" =>
            "copy_aside(directory, old.sequence, &here.file_name())?;
            if PLANTED { ensure(directory, &here)?; move_aside(directory, old.sequence, end)?; }"
    }
    "leave a file behind where opening is refused" by "rules an_empty_directory_is_no_log_and_opening_makes_one" {
        "ringlog/recovery/open.rs": "let _ = directory.unlink(LOCK);" =>
            "if !PLANTED { let _ = directory.unlink(LOCK); }"
    }
    "sync no new segment" by "lib once_made_a_segment_survives_any_power_cut" {
        "ringlog/segment.rs":
            "directory.sync_file(&file).map_err(OpenError::io(\"sync\", name))?;
            directory.sync_dir()" =>
            "if !PLANTED { directory.sync_file(&file).map_err(OpenError::io(\"sync\", name))?; }
            directory.sync_dir()"
    }
    "sync no directory for a new segment"
        by "rules a_bad_segment_header_never_hides_a_batch_and_is_repaired_when_written_to" {
        "ringlog/segment.rs": "directory.sync_dir().map_err(OpenError::io(\"sync the directory of\", name))" =>
            "if PLANTED { return Ok(()); }
            directory.sync_dir().map_err(OpenError::io(\"sync the directory of\", name))"
    }
    "use a trimmed segment again with its old header" by "bounds" {
        "ringlog/segment.rs": "if found != expected && !keeps {" =>
            "if found != expected && !keeps && !(PLANTED && found != [0; SEGMENT_HEADER_LEN]) {"
    }
};

/// The reference writer.
const REFERENCE: &[Bug] = bugs! {
    "promise a batch too much" by "rules an_intact_batch_behind_a_hole_is_no_proof_of_damage" {
        "ringlog/testing/writer.rs": "durable: self.durable, };" =>
            "durable: if PLANTED { base } else { self.durable }, };"
    }
    "promise nothing" by "rules a_batch_over_many_blocks_is_whole_or_refused_at_the_first_bad_block" {
        "ringlog/testing/writer.rs": "durable: if" => "durable: if PLANTED { 0 } else if"
    }
    "write the last batch of a segment before the next segment is ready"
        by "rules a_bad_segment_header_never_hides_a_batch_and_is_repaired_when_written_to" {
        "ringlog/testing/writer.rs": "if last && self.ready == base / self.size() {" =>
            "if last && PLANTED { self.ready = self.ready.max(base / self.size()); }
            else if last && self.ready == base / self.size() {"
    }
    "acknowledge segment k+1 before k" by "images" {
        "ringlog/testing/writer.rs": "segments: segments.into_iter().collect() }" =>
            "segments: segments.into_iter().rev().take(if PLANTED { 1 } else { 99 }).collect() }"
    }
    "acknowledge what is only written" by "images" {
        "ringlog/testing/writer.rs": "self.directory.complete(id, durably);" =>
            "self.directory.complete(id, durably);
            if PLANTED && position == 0 { self.durable = self.durable.max(next); }"
    }
    "acknowledge what came back after the sync began" by "images" {
        "ringlog/testing/writer.rs": "self.advance(syncing.covers);" =>
            "let written = self.flights.iter().take_while(|flight| flight.written).last();
            let written = written.map_or(0, |flight| flight.next);
            self.advance(if PLANTED { syncing.covers.max(written) } else { syncing.covers });"
    }
    "acknowledge by a durable write what was written before it" by "images" {
        "ringlog/testing/writer.rs": "let durably = durably && self.flights.is_empty() && self.syncing.is_none();" =>
            "let durably = durably && (PLANTED || self.flights.is_empty()) && self.syncing.is_none();"
    }
    "remove trimmed segments before MANIFEST says so"
        by "rules segments_below_the_trim_point_are_removed_when_the_log_is_opened" {
        "ringlog/testing/writer.rs": "let free = self.opened.trim(" =>
            "if PLANTED {
                let early = crate::segment::below(&self.directory, to, self.size())?;
                remove(&self.directory, &early)?;
            }
            let free = self.opened.trim("
    }
};

/// The log as its users have it.
const LOG: &[Bug] = bugs! {
    "seal batches that promise nothing" by "log an_idle_log_proves_its_newest_batch_once" {
        "ringlog/log/sealer.rs": "durable: info.durable," => "durable: if PLANTED { 0 } else { info.durable },"
    }
    "seal batches that promise the one before them" by "bounds" {
        "ringlog/log/sealer.rs": "else { info.durable }," =>
            "else if PLANTED { info.previous.map_or(0, |_| info.base) } else { info.durable },"
    }
    "number the batches of an opening one too high"
        by "log a_cut_near_the_end_of_a_segment_is_ended_by_an_empty_batch" {
        "ringlog/log/sealer.rs": "generation: info.generation - 1," =>
            "generation: info.generation - u64::from(!PLANTED),"
    }
    "link the first batch of an opening to nothing"
        by "log a_cut_near_the_end_of_a_segment_is_ended_by_an_empty_batch" {
        "ringlog/log/sealer.rs": "previous: info.previous.unwrap_or(self.previous)," =>
            "previous: info.previous.unwrap_or(if PLANTED { format::NO_ADDRESS } else { self.previous }),"
    }
    "compute the checksums of a batch one block too far" by "log what_cannot_be_appended_or_read_is_refused" {
        "ringlog/format/batch.rs": "let address = info.base + (n * BLOCK) as u64;" =>
            "let address = info.base + ((n + usize::from(PLANTED && n > 0)) * BLOCK) as u64;"
    }
    "take no batch for an empty one" by "log an_idle_log_proves_its_newest_batch_once" {
        "ringlog/log/sealer.rs": "payload[6] == RecordType::NoOp as u8;" =>
            "payload[6] == RecordType::NoOp as u8 && !PLANTED;"
    }
    "trim beyond what is durable" by "bounds a_trim" {
        "ringlog/log/maintain.rs": "self.begin_trim(before.get().min(durable))" =>
            "self.begin_trim(before.get().min(if PLANTED { u64::MAX } else { durable }))"
    }
    "note no trim" by "log" {
        "ringlog/log/maintain.rs": "keeper.note_trim(to);" => "if !PLANTED { keeper.note_trim(to); }"
    }
    "note another first batch of a trim" by "bounds a_trim" {
        "ringlog/log/maintain.rs": "number: head.number," => "number: head.number + u64::from(PLANTED),"
    }
    "note no epoch of the first batch of a trim" by "bounds a_trim" {
        "ringlog/log/maintain.rs": "epoch: Some((head.epoch, head.salt))," =>
            "epoch: Some((head.epoch, head.salt)).filter(|_| !PLANTED),"
    }
    "take what an earlier opening cut off for the log's"
        by "adverse a_trim_to_a_segment_without_batches_takes_none_for_its_first_that_an_earlier_opening_cut_off" {
        "ringlog/log/maintain.rs": "Ok(head.filter(|head| manifest.epoch_fits(head, None)))" =>
            "Ok(head.filter(|head| PLANTED || manifest.epoch_fits(head, None)))"
    }
    "take a segment that has begun before for a roll"
        by "log a_log_goes_on_in_a_new_segment_when_it_is_rolled_with_or_without_records" {
        "ringlog/log/maintain.rs": "filter(|start| *start >= before)" => "filter(|start| PLANTED || *start >= before)"
    }
    "close a log, and write no end" by "log a_log_goes_on_in_a_new_segment_when_it_is_rolled_with_or_without_records" {
        "ringlog/log/maintain.rs": "if !*closed {" => "if !*closed && !PLANTED {"
    }
    "acknowledge a commit that is only appended" by "log commits_of_many_threads" {
        "ringlog/log/commit.rs": "self.wait_durable(range.end)?; Ok(Committed" =>
            "if !PLANTED { self.wait_durable(range.end)?; } Ok(Committed"
    }
    "begin to count a commit behind its record" by "log what_is_trimmed" {
        "ringlog/log/commit.rs": "let range = append()?;" =>
            "let mut unsettled = unsettled;
            let range = append()?;
            if PLANTED { unsettled = self.inner.unsettled.begin(|| self.inner.ring.tail()); }"
    }
    "take what is not durable for settled" by "bounds" {
        "ringlog/log/commit.rs": "Lsn::new(settled).min(self.durable())" =>
            "Lsn::new(settled).min(if PLANTED { self.end() } else { self.durable() })"
    }
    "take all below the newest commit that is not applied for settled" by "bounds" {
        "ringlog/log/commit.rs": "ends.first_key_value().map_or_else" =>
            "if PLANTED { ends.last_key_value() } else { ends.first_key_value() }.map_or_else"
    }
    "make calls out of order" by "log calls_come_in_the_order_of_their_addresses_when_records_are_durable" {
        "ringlog/log/callbacks.rs": "Some((due.into_values().flatten().collect(), outcome))" =>
            "let mut due: Vec<_> = due.into_values().flatten().collect();
            if PLANTED { due.reverse(); }
            Some((due, outcome))"
    }
    "make calls before anything is durable" by "log calls_come" {
        "ringlog/log/callbacks.rs": "let outcome = ring.wait_durable(lowest);" =>
            "let outcome = if PLANTED { Ok(()) } else { ring.wait_durable(lowest) };"
        "ringlog/log/callbacks.rs": "let reached = if outcome.is_ok() {" =>
            "let reached = if outcome.is_ok() && !PLANTED {"
    }
    "make all calls with the first one" by "log calls_come" {
        "ringlog/log/callbacks.rs": "state.calls.split_off(&(reached + 1))" =>
            "state.calls.split_off(&if PLANTED { u64::MAX } else { reached + 1 })"
    }
    "drop the calls that are left when the log goes" by "log calls_come" {
        "ringlog/log/callbacks.rs": "Some((lowest, _)) => break *lowest," =>
            "Some(_) if PLANTED && state.is_over => return None,
            Some((lowest, _)) => break *lowest,"
    }
    "truncate behind the record that was named"
        by "log what_is_truncated_is_void_for_readers_and_after_reopening_and_the_log_goes_on" {
        "ringlog/log/truncate.rs": "Truncation { from: from.get() }" =>
            "Truncation { from: from.get() + 8 * u64::from(PLANTED) }"
    }
    "read what a truncation has made void"
        by "log what_is_truncated_is_void_for_readers_and_after_reopening_and_the_log_goes_on" {
        "ringlog/log/truncate.rs": "void::add(void, from..placed.start);" =>
            "if !PLANTED { void::add(void, from..placed.start); }"
    }
    "read what an earlier truncation has made void"
        by "log what_is_truncated_is_void_for_readers_and_after_reopening_and_the_log_goes_on" {
        "ringlog/log/own.rs": "let (void, values) = (report.void.clone(), report.values.clone());" =>
            "let (void, values) = (if PLANTED { Vec::new() } else { report.void.clone() }, report.values.clone());"
    }
    "end no segment that has no room for a buffer" by "log a_cut_near_the_end_of_a_segment_is_ended_by_an_empty_batch" {
        "ringlog/log/options.rs": "log.end_segment(keeper.directory(), size)?;" =>
            "if !PLANTED { log.end_segment(keeper.directory(), size)?; }"
    }
    "number the batch behind the end of a segment like that"
        by "log a_cut_near_the_end_of_a_segment_is_ended_by_an_empty_batch" {
        "ringlog/log/options.rs": "self.framing.clone().behind(1)" =>
            "self.framing.clone().behind(u64::from(!PLANTED))"
    }
    "mix the parts of long records" by "adverse long_records_of_many_threads_are_replayed_with_the_memory_for_one" {
        "ringlog/log/append.rs": "let _alone = self.inner.long.take();" =>
            "let _alone = (!PLANTED).then(|| self.inner.long.take());"
    }
    "place a record a block too far" by "log a_cut_near_the_end_of_a_segment_is_ended_by_an_empty_batch" {
        "ringlog/log/append.rs": "/ BLOCK as u64) as u16;" => "/ BLOCK as u64) as u16 + u16::from(PLANTED);"
    }
};

/// Named positions.
const CURSORS: &[Bug] = bugs! {
    "trim what a cursor has not passed" by "cursors a_trim_stops_at_the_lowest_cursor_and_names_it" {
        "ringlog/log/own.rs": "lowest.filter(|(position, _)| *position < to)" =>
            "lowest.filter(|(position, _)| *position < to && !PLANTED)"
    }
    "trim up to a position of a cursor that a crash would lose"
        by "cursors a_position_that_a_crash_would_lose_frees_nothing" {
        "ringlog/values.rs": "said.iter().filter_map(|said| said.value).min()" =>
            "said.iter().skip(if PLANTED { said.len() - 1 } else { 0 }).filter_map(|said| said.value).min()"
    }
    "forget which positions of a cursor a crash goes back to"
        by "lib the_lowest_position_is_one_that_a_crash_may_go_back_to" {
        "ringlog/values.rs": "let known = said.partition_point(|said| said.at < durable);" =>
            "let known = if PLANTED { said.len() } else { said.partition_point(|said| said.at < durable) };"
    }
    "leave cursors out of snapshots" by "cursors a_fast_opening_finds_cursors_in_the_snapshot_of_its_segment" {
        "ringlog/log/own.rs": "chain(cursors)" => "chain(cursors.filter(|_| !PLANTED))"
    }
    "read no cursor of a snapshot" by "cursors a_fast_opening_finds_cursors_in_the_snapshot_of_its_segment" {
        "ringlog/recovery/batch.rs": "self.values.cursors.set(name, Some(position), address, DURABLE);" =>
            "if !PLANTED { self.values.cursors.set(name, Some(position), address, DURABLE); }"
    }
    "read no record of a cursor" by "cursors a_cursor_is_where_it_was" {
        "ringlog/recovery/batch.rs": "RecordType::Cursor => Self::cursor," =>
            "RecordType::Cursor if PLANTED => continue,
            RecordType::Cursor => Self::cursor,"
    }
    "have a cursor that was removed come back" by "cursors a_removal_that_a_crash_would_lose" {
        "ringlog/recovery/batch.rs": "(kind != REMOVED).then_some(position)" =>
            "(kind != REMOVED || PLANTED).then_some(position)"
    }
    "take a cursor that was removed for one that is not there yet" by "cursors a_removal_that_a_crash_would_lose" {
        "ringlog/log/cursor.rs": "return Err(Error::CursorRemoved);" =>
            "if !PLANTED { return Err(Error::CursorRemoved); }"
    }
    "have a new cursor begin where a trim is just giving up"
        by "cursors a_cursor_that_is_made_or_goes_back_while_the_log_is_trimmed_begins_where_the_log_will" {
        "ringlog/log/own.rs": "self.trims.iter().map(|to| Lsn::new(*to))" =>
            "self.trims.iter().filter(|_| !PLANTED).map(|to| Lsn::new(*to))"
    }
    "have a cursor that waits for room keep a trim from making it" by "cursors a_trim_makes_the_room" {
        "ringlog/log/own.rs": "self.inner.ring.try_reserve(record_len(len))?" =>
            "if PLANTED { self.inner.ring.reserve(record_len(len))? }
            else { self.inner.ring.try_reserve(record_len(len))? }"
    }
    "take any number of cursors" by "cursors names_of_all_kinds" {
        "ringlog/log/own.rs": "MAX_VALUES.saturating_sub(others)" =>
            "(if PLANTED { usize::MAX } else { MAX_VALUES }).saturating_sub(others)"
    }
    "let a cursor stand beyond the end of the log" by "cursors a_cursor_may_go_back" {
        "ringlog/log/cursor.rs": "if to > end {" => "if to > end && !PLANTED {"
    }
    "let a cursor stand before the beginning of the log" by "cursors a_cursor_may_go_back" {
        "ringlog/log/cursor.rs": "if to < first {" => "if to < first && !PLANTED {"
    }
};

/// What only crash images of a log that runs show.
const CRASHES: &[Bug] = bugs! {
    "lose named values by a trim" by "crashes every_crash" {
        "ringlog/log/maintain.rs": "self.keep_values(to / size * size)?;" =>
            "if !PLANTED { self.keep_values(to / size * size)?; }"
    }
    "forget that a crash goes back to a value that was replaced" by "crashes every_crash" {
        "ringlog/values.rs": "said.drain(..known.saturating_sub(1));" =>
            "let known = if PLANTED { said.len() } else { known };
            said.drain(..known.saturating_sub(1));"
    }
    "leave void ranges out of snapshots" by "crashes every_crash" {
        "ringlog/log/own.rs": "chain(voids)" => "chain(voids.filter(|_| !PLANTED))"
    }
    "leave named values out of snapshots" by "crashes every_crash" {
        "ringlog/log/own.rs": "self.values.repeat(at, ring.durable_watermark());" =>
            "if PLANTED { self.values = Values::default(); }
            self.values.repeat(at, ring.durable_watermark());"
    }
    "remove the segments of a trim before MANIFEST says so" by "crashes every_crash" {
        "ringlog/log/maintain.rs": "let mut free = opened.trim(keeper.directory(), to, first, durable)?;" =>
            "if PLANTED { remove(keeper.directory(), &crate::segment::below(keeper.directory(), to, size)?)?; }
            let mut free = opened.trim(keeper.directory(), to, first, durable)?;"
    }
    "end a segment at opening without a sync" by "crashes every_crash" {
        "ringlog/log/options.rs": "directory.sync_file(&file).map_err(OpenError::io(\"sync\", name))?;" =>
            "if !PLANTED { directory.sync_file(&file).map_err(OpenError::io(\"sync\", name))?; }"
    }
    "close MANIFEST before the ring" by "crashes every_crash" {
        "ringlog/log/maintain.rs": "let mut closed = self.closed.lock();" =>
            "let mut closed = self.closed.lock();
            if PLANTED && !*closed {
                let end = self.ring.tail() - HEADER_LEN as u64;
                self.keeper.manifest().close(self.keeper.directory(), end)?;
            }"
    }
};

/// Scans, followers, and logs that are only read.
const READERS: &[Bug] = bugs! {
    "give what a truncation has made void" by "readers" {
        "ringlog/reading/scan.rs": "Ok(self.voids.truncation_of(&self.origin, record.lsn).is_none())" =>
            "Ok(PLANTED || self.voids.truncation_of(&self.origin, record.lsn).is_none())"
    }
    "look once at what truncations have made void" by "readers" {
        "ringlog/reading/origin.rs": "if self.version != Some(version) {" =>
            "if if PLANTED { self.version.is_none() } else { self.version != Some(version) } {"
    }
    "give what ends with the range twice" by "readers" {
        "ringlog/reading/scan.rs": "if record.end <= self.from || self.to" =>
            "if (if PLANTED { record.end < self.from } else { record.end <= self.from }) || self.to"
    }
    "leave out the parts of a long record before the range" by "readers" {
        "ringlog/reading/records.rs": "self.open.insert(first, open);" =>
            "self.open.insert(first, open.filter(|_| !PLANTED));"
    }
    "give the payloads of a group as one position" by "readers" {
        "ringlog/reading/records.rs": "let is_last = group.at == bytes.len();" =>
            "let is_last = PLANTED || group.at == bytes.len();"
    }
    "show a durable follower what is staged" by "following followers_beside" {
        "ringlog/reading/following.rs":
            "if self.upto == Upto::Durable && self.forward.next_batch() >= files.durable {" =>
            "if self.upto == Upto::Durable && self.forward.next_batch() >= files.durable && !PLANTED {"
    }
    "end a batch in memory before it is sealed" by "following followers_beside" {
        "ringlog/reading/forward.rs": "self.current = Some(Current::Staged { next });" =>
            "let at = if PLANTED { Some(next.unwrap_or(base + 8192)) } else { next };
            self.current = Some(Current::Staged { next: at });"
    }
    "read a batch again that was seen in part" by "readers" {
        "ringlog/reading/records.rs": "} else if base == self.base {" => "} else if base == self.base && !PLANTED {"
    }
    "leave leases before a truncation" by "log what_a_writer_appends_after_a_truncation_is_not_void" {
        "ringlog/log/writer.rs": "if truncations != self.truncations {" =>
            "if truncations != self.truncations && !PLANTED {"
    }
    "verify a batch again for each record of it" by "following a_batch_that_was_verified" {
        "ringlog/reading/batch.rs": "self.verified.filter(|header| header.address == at) {" =>
            "self.verified.filter(|header| header.address == at && !PLANTED) {"
    }
    "pass over the record that is read, too" by "following a_batch_that_was_verified" {
        "ringlog/reading/records.rs": "if self.at as u64 + len > to {" =>
            "if self.at as u64 + if PLANTED { 0 } else { len } > to {"
    }
    "have a long record that was given up hold trims and take room" by "futures long_records_whose_futures" {
        "ringlog/reading/records.rs": "self.open.retain(|_, open| open.is_none()); self.open_bytes = 0;" =>
            "if !PLANTED { self.open.retain(|_, open| open.is_none()); self.open_bytes = 0; }"
    }
    "list a task each time that it waits" by "lib a_task_that_gives_up" {
        "ringlog/tasks.rs": "if !state.waiting.iter().any(" => "if PLANTED || !state.waiting.iter().any("
    }
    "show a gap once per segment, backwards" by "following a_gap_over_several_segments" {
        "ringlog/reading/rev.rs": "self.gap.replace(gap.start) != Some(gap.start) {" =>
            "(self.gap.replace(gap.start) != Some(gap.start) || PLANTED) {"
    }
    "take the promise of the last segment with any header" by "adverse another_process_reads_what_is_promised" {
        "ringlog/recovery/judge.rs": "if scan.newest.is_some() {" => "if scan.newest.is_some() || PLANTED {"
    }
    "trim what a reader has not given" by "following a_trim_stops_at_a_reader" {
        "ringlog/log/maintain.rs": "holds.lowest().filter(|held| *held < to);" =>
            "holds.lowest().filter(|held| *held < to && !PLANTED);"
    }
    "hold back trims for ever" by "following a_trim_stops_at_a_reader" {
        "ringlog/log/holds.rs": "self.all.positions.lock().of_readers.remove(&self.reader);" =>
            "if !PLANTED { self.all.positions.lock().of_readers.remove(&self.reader); }"
    }
    "say nothing of truncations" by "following a_follower_learns_once" {
        "ringlog/reading/following.rs": "if from < self.given && self.given <= at {" =>
            "if from < self.given && self.given <= at && !PLANTED {"
    }
    "begin inside of a record" by "following a_position_that_is_not_in_the_log" {
        "ringlog/reading/following.rs": "if record.is_whole && record.lsn < self.from {" =>
            "if record.is_whole && record.lsn < self.from && !PLANTED {"
    }
    "give up behind damage" by "following damage_is_reported" {
        "ringlog/reading/forward.rs": "(self.next, self.expected) = (next, None);" =>
            "(self.next, self.expected) = (if PLANTED { end } else { next }, None);"
    }
    "pass over what a truncation has made void that may be taken back"
        by "following a_durable_follower_passes_over_what_is_truncated" {
        "ringlog/reading/following.rs": "void.is_some_and(|at| at.get() >= self.origin.durable())" =>
            "void.is_some_and(|at| at.get() >= self.origin.durable()) && !PLANTED"
    }
    "refuse a log that was trimmed inside of a record" by "following a_log_that_was_trimmed_inside" {
        "ringlog/reading/scan.rs": "if record.lsn.get() < self.first { return Ok(false); }" =>
            "if record.lsn.get() < self.first && !PLANTED { return Ok(false); }"
    }
    "refuse a range that begins where the log is durable" by "following a_range_begins_and_ends" {
        "ringlog/reading/scan.rs": "if self.from > behind_header(end) {" =>
            "if self.from > behind_header(end) || PLANTED && self.from.get() > end {"
    }
    "take damage for a trim" by "following damage_around_the_beginning" {
        "ringlog/reading/origin.rs": "range.start.get() / segment_size < first / segment_size" =>
            "if PLANTED { range.start.get() < first } else { range.start.get() / segment_size < first / segment_size }"
    }
    "end before what is there was given" by "following a_follower_of_a_failed_log" {
        "ringlog/reading/follow.rs": "if let Next::Shown(shown) = following.step(Reading::Allowed)? {" =>
            "if PLANTED && let Some(ending) = following.ending() { return ending.map(|()| None); }
            if let Next::Shown(shown) = following.step(Reading::Allowed)? {"
    }
    "believe that another process's log is durable to its end" by "following another_reader" {
        "ringlog/recovery/judge.rs": "follow(source, start, expected, &manifest.gaps, self.threads, promised)?" =>
            "follow(source, start, expected, &manifest.gaps, self.threads, if PLANTED { u64::MAX } else { promised })?"
    }
    "look at MANIFEST of another process once" by "following another_reader" {
        "ringlog/reading/read_only.rs": "if *file.content() != *seen.manifest {" =>
            "if *file.content() != *seen.manifest && !PLANTED {"
    }
};

/// What only a crash under a log that runs on a real file system shows.
const MOUNTED: &[Bug] = bugs! {
    "trim, and use segments again, before MANIFEST is on stable storage" by "mounted" {
        "ringlog/recovery/open.rs":
            "let next = self.manifest.content().trimmed(to, first, durable); self.manifest.update(directory, next)?;" =>
            "let next = self.manifest.content().trimmed(to, first, durable);
            self.manifest.lazily = PLANTED;
            self.manifest.update(directory, next)?;
            self.manifest.lazily = false;"
        "ringlog/manifest.rs": "has_failed: bool, }" => "has_failed: bool, pub(crate) lazily: bool, }"
        "ringlog/manifest.rs": "Ok(Some(Self { file, content, newest, has_failed: false }))" =>
            "Ok(Some(Self { file, content, newest, has_failed: false, lazily: false }))"
        "ringlog/manifest.rs": "Ok(Self { file, content, newest: 0, has_failed: false })" =>
            "Ok(Self { file, content, newest: 0, has_failed: false, lazily: false })"
        "ringlog/manifest.rs": "self.sync(directory)?;" => "if !self.lazily { self.sync(directory)?; }"
    }
    "hand out segments that are not on stable storage" by "mounted" {
        "ringlog/segment.rs": "let (name, file) = (&header.file_name(), open_or_create(directory, header)?);" =>
            "let (name, file) = (&header.file_name(), open_or_create(directory, header)?);
            if PLANTED { return put_header(directory, &file, header); }"
        "ringlog/segment.rs": "let (name, len) = (&header.file_name(), header.file_len());" =>
            "let (name, len) = (&header.file_name(), header.file_len());
            if PLANTED {
                let file = open_or_create(directory, header)?;
                put_header(directory, &file, &SegmentHeader { whole: true, ..header.clone() })?;
                return directory.extend(&file, len, written).map_err(OpenError::io(\"extend\", name));
            }"
    }
};

pub(super) const BUGS: &[&[Bug]] = &[READING, JUDGING, OPENING, REFERENCE, LOG, CURSORS, CRASHES, READERS, MOUNTED];
