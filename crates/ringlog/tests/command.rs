//! The command `ringlog`, run as its users run it: on the checked-in logs, on logs made here, beside writers, and on
//! what is no log.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use ring_testing::Random;
use ringlog::{Group, Log, Lsn, Options};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringlog");

/// Longer than anything here takes: it only ends what hangs.
const HANGS: Duration = Duration::from_secs(120);

/// Subcommands that only read, and what they need beside a directory.
const READERS: [&[&str]; 8] = [
    &["inspect"],
    &["verify"],
    &["verify", "--fast"],
    &["dump"],
    &["dump", "--payload", "hex", "--from", "100", "--limit", "3"],
    &["tail", "-n", "3"],
    &["stats"],
    &["repair", "--dry-run"],
];

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vector").join(name)
}

/// A copy of a checked-in log, to be written to.
fn copy_of(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::create_dir(&path).unwrap();
    for (name, bytes) in files(&vector(name)) {
        fs::write(path.join(name), bytes).unwrap();
    }
    (folder, path)
}

/// All files of a directory, byte by byte.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let regular = entries.filter(|entry| entry.file_type().unwrap().is_file());
    regular.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn run(path: &Path, arguments: &[&str]) -> (i32, Output) {
    // It ends what hangs with another status.
    let mut command = Command::new("timeout");
    command.args(["60", PROGRAM]);
    let output = command.arg(arguments[0]).arg(path).args(&arguments[1..]).output().unwrap();
    let status = output.status.code().unwrap_or_else(|| panic!("{arguments:?} on {}: {output:?}", path.display()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!((0..=3).contains(&status) && !errors.contains("panicked"), "{arguments:?}: {status}, {errors}");
    (status, output)
}

fn text(path: &Path, arguments: &[&str]) -> (i32, String) {
    let (status, output) = run(path, &[arguments, &["--text"]].concat());
    (status, String::from_utf8(output.stdout).unwrap())
}

/// The whole output as one JSON object: what is printed where it is no terminal.
fn json(path: &Path, arguments: &[&str]) -> (i32, Value) {
    let (status, output) = run(path, arguments);
    let json = serde_json::from_slice(&output.stdout);
    (status, json.unwrap_or_else(|why| panic!("{arguments:?}: {why} in {output:?}")))
}

/// The output as one JSON object a line.
fn lines(path: &Path, arguments: &[&str]) -> (i32, Vec<Value>) {
    let (status, output) = run(path, arguments);
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    (status, lines.map(|line| serde_json::from_slice(line).unwrap()).collect())
}

fn small() -> Options {
    Log::options().segment_size(64 << 10).ring(4, 8 << 10)
}

/// A log of several segments and two epochs, and what it holds.
fn small_log(path: &Path) -> Vec<(u8, Vec<u8>)> {
    let mut written = Vec::new();
    for epoch in 0..2_u8 {
        let (log, _) = small().open(path).unwrap();
        for n in 0..100_u8 {
            let payload = vec![n; usize::from(n) * 20];
            log.append(epoch, &payload).unwrap();
            written.push((epoch, payload));
        }
        log.set_meta("vote", &[b'7' + epoch]).unwrap();
        log.close().unwrap();
    }
    written
}

#[test]
fn each_verdict_has_its_exit_status_and_its_proof() {
    let cases = [
        ("clean", 0, "clean", "MANIFEST says that the log was closed at 36864"),
        ("unclosed", 0, "unclosed", "MANIFEST does not say that the log was closed"),
        ("gap", 0, "unclosed", "but for one gap that was accepted"),
        ("torn", 1, "torn", "at 32768: a batch whose block 0 is bad; the header of a batch of epoch 2 stands at 32768"),
        ("torn-without-header", 1, "torn", "the checksums of a batch of epoch 2 that began at 32768 are there"),
        ("damaged-byte", 2, "damaged", "a batch whose block 0 is bad; but the durable address in MANIFEST proves"),
        ("damaged-zeros", 2, "damaged", "at 16384, in 00000000000000016384.seg: zeros; but the durable address"),
        ("damaged-missing-segment", 2, "damaged", "the segment file is missing; but the durable address in MANIFEST"),
    ];
    for (name, expected, word, proof) in cases {
        let (status, page) = json(&vector(name), &["verify"]);
        assert_eq!((status, page["verdict"].as_str()), (expected, Some(word)), "{name}");
        assert!(page["proof"].as_str().unwrap().contains(proof), "{name}: {}", page["proof"]);
        let (status, page) = text(&vector(name), &["verify"]);
        // Text is wrapped.
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(status == expected && page.contains(proof) && page.contains(word), "{name}: {page}");
        // All that only read end with the status of the log.
        for arguments in READERS {
            let (status, _) = run(&vector(name), arguments);
            assert_eq!(status, expected, "{arguments:?} on {name}");
        }
    }
    let (_, page) = json(&vector("damaged-byte"), &["verify"]);
    assert_eq!((page["damaged"]["from"].as_u64(), page["damaged"]["to"].as_u64()), (Some(20_480), Some(32_768)));
}

#[test]
fn what_only_reads_changes_no_byte() {
    for entry in fs::read_dir(vector("")).unwrap() {
        let (_folder, path) = copy_of(entry.unwrap().file_name().to_str().unwrap());
        // A writer would make it.
        fs::remove_file(path.join("LOCK")).unwrap();
        let before = files(&path);
        for arguments in READERS {
            run(&path, arguments);
            assert_eq!(files(&path), before, "{arguments:?}");
        }
        let target = path.with_extension("copy");
        run(&path, &["copy", target.to_str().unwrap(), "--damaged"]);
        assert_eq!(files(&path), before);
    }
}

#[test]
fn records_are_printed_in_order_with_ranges_kinds_and_forms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let written = small_log(&path);
    let (status, printed) = lines(&path, &["dump", "--payload", "hex"]);
    assert_eq!(status, 0);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let found = printed.iter().map(|line| (line["kind"].as_u64().unwrap() as u8, line["hex"].as_str().unwrap().into()));
    let expected = written.iter().map(|(kind, payload)| (*kind, hex(payload)));
    assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<(u8, String)>>());
    let lsns = |lines: &[Value]| lines.iter().map(|line| line["lsn"].as_u64().unwrap()).collect::<Vec<_>>();
    assert!(lsns(&printed).is_sorted_by(|before, after| before < after));

    let (from, to) = (printed[150]["lsn"].to_string(), printed[160]["lsn"].to_string());
    let (_, part) = lines(&path, &["dump", "--payload", "hex", "--from", &from, "--to", &to]);
    assert_eq!(part, printed[150..160]);
    let (_, part) = lines(&path, &["dump", "--payload", "hex", "--kind", "1", "--limit", "5"]);
    assert_eq!(part, printed[100..105]);
    assert_eq!(lines(&path, &["dump", "--payload", "hex", "--to", "99999999"]), (0, printed.clone()));
    let (_, part) = lines(&path, &["tail", "--payload", "hex"]);
    assert_eq!(part, printed[190..]);
    let (_, part) = lines(&path, &["tail", "--payload", "hex", "-n", "1000"]);
    assert_eq!(part, printed);
    let (_, part) = lines(&path, &["tail", "-n", "3", "--kind", "0", "--payload", "none"]);
    assert_eq!(lsns(&part), lsns(&printed[97..100]));
    let (_, page) = text(&path, &["dump", "--from", &to, "--limit", "1", "--bytes", "3"]);
    assert_eq!(page.split_whitespace().collect::<Vec<_>>(), [&*to, "kind", "1", "1200", "B", "<<<…"]);
}

#[test]
fn records_behind_damage_are_printed_and_the_damage_where_it_lies() {
    let (status, printed) = lines(&vector("damaged-byte"), &["dump", "--payload", "none"]);
    let found: Vec<_> = printed.iter().map(|line| line["lsn"].as_u64().or(line["damaged"]["from"].as_u64())).collect();
    assert_eq!(status, 2);
    assert!(found.windows(2).any(|two| two == [Some(20_480), Some(25_664)]), "{found:?}");
    assert!(found.contains(&Some(28_872)), "{found:?}");
    assert_eq!(printed.last().unwrap()["verdict"], "damaged");
    let (status, printed) = lines(&vector("damaged-byte"), &["tail", "-n", "1", "--payload", "none"]);
    assert_eq!((status, &printed[0]["lsn"]), (2, &28_872.into()));
}

#[test]
fn payloads_are_printed_as_json_where_they_are_json() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = small().open(folder.path()).unwrap();
    for payload in [&br#"{"a":[1,2]}"#[..], b"no json", b"\xff\xfe"] {
        log.append(0, payload).unwrap();
    }
    log.close().unwrap();
    let (_, printed) = lines(folder.path(), &["dump", "--payload", "json"]);
    assert_eq!(printed[0]["json"]["a"][1], 2);
    assert_eq!((&printed[1]["utf8"], &printed[2]["hex"]), (&Value::from("no json"), &Value::from("fffe")));
}

#[test]
fn a_record_over_several_segments_is_found_from_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = small().open(folder.path()).unwrap();
    log.append(1, b"before").unwrap();
    log.append(2, &vec![7; 200_000]).unwrap();
    log.append(3, b"after").unwrap();
    log.sync().unwrap();
    // Until a snapshot in the last segments lets opening begin there.
    let (begun, start) = (Instant::now(), || json(folder.path(), &["verify", "--fast"]).1["checked_from"].as_u64());
    while start() == Some(0) {
        assert!(begun.elapsed() < HANGS, "opening reads all of the log");
        log.append(4, b"later").unwrap();
        log.sync().unwrap();
    }
    log.close().unwrap();
    let from = start().unwrap().to_string();
    let (_, printed) = lines(folder.path(), &["dump", "--from", &from, "--limit", "2", "--payload", "none"]);
    let found: Vec<_> = printed.iter().map(|line| (line["kind"].as_u64(), line["len"].as_u64())).collect();
    assert_eq!(found, [(Some(2), Some(200_000)), (Some(3), Some(5))]);
    // Damage below where opening begins is met when it is read.
    let path = folder.path().join("00000000000000000000.seg");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 100] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!((json(folder.path(), &["verify", "--fast"]).0, lines(folder.path(), &["dump"]).0), (0, 2));
}

#[test]
fn inspect_shows_what_stands_in_the_files_also_without_a_usable_manifest() {
    let (_, page) = json(&vector("unclosed"), &["inspect"]);
    assert_eq!(page["MANIFEST"].as_array().unwrap().len(), 2);
    assert_eq!(page["MANIFEST"][0]["known_durable"], 32_768);
    assert_eq!((&page["epochs"][1]["start"], &page["segments"][2]["first_batch"]), (&28_672.into(), &6.into()));
    assert_eq!(page["segments"][0]["header"], "good, cookie \"vector\"");
    assert_eq!((&page["batches"][0]["number"], &page["batches"][1]["number"]), (&0.into(), &6.into()));
    let (_folder, path) = copy_of("unclosed");
    fs::write(path.join("MANIFEST"), b"no manifest").unwrap();
    let (status, output) = run(&path, &["inspect", "--text"]);
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(status == 3 && page.contains("no MANIFEST slot") && page.contains("00000000000000016384.seg"), "{page}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("no slot of MANIFEST is usable"));
}

#[test]
fn stats_count_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let written = small_log(folder.path());
    let (status, page) = json(folder.path(), &["stats"]);
    let bytes: usize = written.iter().map(|(_, payload)| payload.len()).sum();
    assert_eq!((status, &page["records"], &page["bytes_of_records"]), (0, &200.into(), &bytes.into()));
    assert_eq!((&page["kinds"][1]["kind"], &page["kinds"][1]["records"]), (&1.into(), &100.into()));
    assert_eq!((&page["named_values"][0]["name"], &page["epochs_in_the_log"]), (&"vote".into(), &2.into()));
    let parts = page["where_the_bytes_are"].as_array().unwrap();
    let sum: u64 = parts.iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
    assert_eq!(Some(sum), page["bytes_of_log"].as_u64());
    assert!(text(folder.path(), &["stats"]).1.contains("batch sizes"));
}

#[test]
fn what_cannot_be_judged_is_status_3_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::create_dir(place("empty")).unwrap();
    fs::create_dir(place("photos")).unwrap();
    fs::write(place("photos/1.jpg"), b"no log").unwrap();
    fs::write(place("file"), b"no directory").unwrap();
    let made = |name: &str| {
        fs::rename(copy_of("unclosed").1, place(name)).unwrap();
        place(name)
    };
    fs::remove_file(made("lost").join("MANIFEST")).unwrap();
    fs::write(made("bad").join("MANIFEST"), [7; 8192]).unwrap();
    let strange = made("strange");
    fs::remove_file(strange.join("00000000000000016384.seg")).unwrap();
    fs::create_dir(strange.join("00000000000000016384.seg")).unwrap();
    let foreign = made("foreign");
    small_log(&place("other"));
    fs::copy(place("other/00000000000000000000.seg"), foreign.join("00000000000000049152.seg")).unwrap();
    let yesterday = place("yesterday");
    small_log(&yesterday);
    let old = fs::read(yesterday.join("MANIFEST")).unwrap();
    small_log(&yesterday);
    fs::write(yesterday.join("MANIFEST"), old).unwrap();
    let cases = [
        ("none", "No such file or directory"),
        ("empty", "there is no log here"),
        ("photos", "there is no log here"),
        ("file", "ot a directory"),
        ("lost", "no MANIFEST, but"),
        ("bad", "no slot of MANIFEST is usable"),
        ("strange", "not a regular file"),
        ("foreign", "belongs to log"),
        ("yesterday", "but MANIFEST ends at 2"),
    ];
    for (name, why) in cases {
        let (path, target) = (place(name), place("target"));
        let copy = ["copy", target.to_str().unwrap()];
        for arguments in READERS[..7].iter().copied().chain([&copy[..]]) {
            let (status, output) = run(&path, arguments);
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(status == 3 && said.contains(why), "{arguments:?} on {name}: {status}, {said}");
            let last = String::from_utf8(output.stdout).unwrap();
            let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
            assert!(last["error"].as_str().unwrap().contains(why), "{arguments:?} on {name}: {last}");
        }
        assert!(!target.exists());
    }
    // What repair cannot do it does not begin, unless it is asked for.
    for name in ["none", "empty", "photos", "file", "strange", "foreign", "yesterday"] {
        let before = place(name).is_dir().then(|| files(&place(name)));
        assert_eq!(run(&place(name), &["repair"]).0, 3, "{name}");
        assert_eq!(place(name).is_dir().then(|| files(&place(name))), before, "{name}");
    }
    let before = files(&yesterday);
    let (status, page) = json(&yesterday, &["repair", "--rebuild"]);
    assert_eq!((status, page["records"].as_u64()), (0, Some(400)), "{page}");
    assert!(page["not_known"].to_string().contains("still held the key"), "{page}");
    assert_nothing_is_lost(&before, &files(&yesterday));
    assert_eq!(json(&yesterday, &["verify"]).0, 0);
}

#[test]
fn files_that_may_not_be_read_are_an_error_and_files_that_may_only_be_read_are_none() {
    let (folder, path) = copy_of("clean");
    for open in [folder.path(), &path] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = folder.path().join("ringlog");
    fs::copy(PROGRAM, &program).unwrap();
    let verify = || {
        let mut command = Command::new(&program);
        command.arg("verify").arg(&path);
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        command.output().unwrap()
    };
    let permit = |mode| {
        for name in files(&path).keys() {
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    permit(0o444);
    assert_eq!(verify().status.code(), Some(0));
    permit(0o000);
    let output = verify();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("Permission denied"));
    permit(0o644);
}

#[test]
fn bad_usage_is_status_3_and_help_is_none() {
    let status = |arguments: &[&str]| Command::new(PROGRAM).args(arguments).output().unwrap().status.code();
    for bad in [
        &[][..],
        &["explain", "log"],
        &["verify"],
        &["dump", "log", "--from", "x"],
        &["verify", "a", "--json", "--text"],
    ] {
        assert_eq!(status(bad), Some(3), "{bad:?}");
    }
    for good in [&["--help"][..], &["--version"], &["repair", "--help"], &["man"], &["man", "repair"]] {
        assert_eq!(status(good), Some(0), "{good:?}");
    }
    assert_eq!(status(&["man", "explain"]), Some(3));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(PROGRAM).args(["completions", shell]).output().unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains("on-damage"), "{shell}");
    }
}

#[test]
fn files_that_were_cut_or_are_missing_are_damage_if_that_can_be_proven() {
    let folder = tempfile::tempdir().unwrap();
    small_log(folder.path());
    let names: Vec<_> = files(folder.path()).into_keys().filter(|name| name.ends_with(".seg")).collect();
    assert!(names.len() > 2);
    for name in &names[..2] {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..20_000]).unwrap();
        assert_eq!(json(folder.path(), &["verify"]).0, 2, "{name}");
        fs::remove_file(&path).unwrap();
        let (status, page) = json(folder.path(), &["verify"]);
        assert_eq!((status, page["content"].as_str()), (2, Some("the segment file is missing")), "{name}");
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(json(folder.path(), &["verify"]).0, 0);
}

/// Everything that `before` had in it is somewhere in `after`: each file as a whole, under some name.
fn assert_nothing_is_lost(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in before {
        let is_there = after.iter().any(|(other, found)| found == bytes && other.contains(name.as_str()));
        assert!(is_there, "{name} is gone; there are {:?}", after.keys());
    }
}

#[test]
fn repair_makes_a_log_good_again_and_deletes_nothing() {
    let cases =
        [("torn", "cut"), ("torn-without-header", "cut"), ("damaged-byte", "ended"), ("damaged-zeros", "ended")];
    for (name, how) in cases.into_iter().chain([("damaged-missing-segment", "ended")]) {
        let (_folder, path) = copy_of(name);
        let (before, (_, records)) = (files(&path), lines(&path, &["dump"]));
        assert!(text(&path, &["repair", "--dry-run"]).1.contains("would do"));
        assert_eq!(files(&path), before);
        let (status, page) = json(&path, &["repair"]);
        assert_eq!((status, page["verdict"].as_str()), (0, Some("clean")), "{name}");
        assert!(page["done"][0].as_str().unwrap().starts_with(how), "{name}: {page}");
        assert_nothing_is_lost(&before, &files(&path));
        assert_eq!(json(&path, &["verify"]).0, 0);
        // What was before the end; not what was reported, nor what is behind the damage.
        let end = page["end"].as_u64().unwrap();
        let is_before = |line: &&Value| line["end"].as_u64().is_some_and(|record| record <= end);
        assert_eq!(lines(&path, &["dump"]), (0, records.iter().filter(is_before).cloned().collect()));
        // It can be written to, and what was set aside stays.
        let aside = files(&path);
        let (log, _) = Log::options().ring(2, 4096).open(&path).unwrap();
        log.append(9, b"new").unwrap();
        log.close().unwrap();
        drop(log);
        let after = files(&path);
        assert!(aside.iter().filter(|(name, _)| name.starts_with("aside-")).all(|(name, bytes)| after[name] == *bytes));
        assert!(json(&path, &["repair"]).1["done"][0].as_str().unwrap().starts_with("nothing"), "{name}");
        assert_eq!(files(&path), after);
    }
}

#[test]
fn repair_keeps_what_is_intact_behind_the_damage_if_it_is_skipped() {
    let (_folder, path) = copy_of("damaged-byte");
    let before = files(&path);
    let (status, page) = json(&path, &["repair", "--on-damage", "skip"]);
    assert_eq!((status, page["verdict"].as_str(), page["records"].as_u64()), (0, Some("clean"), Some(10)));
    assert_nothing_is_lost(&before, &files(&path));
    let (_, printed) = lines(&path, &["dump", "--payload", "none"]);
    assert!(printed.iter().any(|line| line["gap"]["from"] == 20_480 && line["gap"]["to"] == 24_576));
    assert_eq!(printed.last().unwrap()["lsn"], 32_840);
}

#[test]
fn repair_keeps_segments_that_were_trimmed_and_would_be_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = small().open(folder.path()).unwrap();
    for n in 0..100_u8 {
        log.append(n, &[n; 3000]).unwrap();
    }
    log.sync().unwrap();
    assert!(log.trim(log.durable()).unwrap().bytes > 0);
    log.close().unwrap();
    drop(log);
    let (_, page) = json(folder.path(), &["inspect"]);
    let last = page["batches"].as_array().unwrap().last().unwrap()["address"].as_u64().unwrap();
    let name = format!("{:020}.seg", last / 65_536 * 65_536);
    let mut bytes = fs::read(folder.path().join(&name)).unwrap();
    bytes[4096 + (last % 65_536) as usize + 100] ^= 1;
    fs::write(folder.path().join(&name), bytes).unwrap();
    let before = files(folder.path());
    assert_eq!(json(folder.path(), &["verify"]).0, 2);
    assert_eq!(json(folder.path(), &["repair"]).0, 0);
    assert_nothing_is_lost(&before, &files(folder.path()));
}

#[test]
fn a_log_whose_manifest_is_lost_is_rebuilt_with_all_addresses_and_what_stays_unknown_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    small_log(&path);
    let (before, records) = (files(&path), lines(&path, &["dump"]));
    let manifest = &before["MANIFEST"];
    let mut no_key = manifest.clone();
    no_key[24..40].fill(0);
    no_key[4096 + 24..4096 + 40].fill(0);
    let mut with_key = manifest.clone();
    with_key[200] ^= 1;
    with_key[4096 + 200] ^= 1;
    for (found, key) in [(None, false), (Some(no_key), false), (Some(with_key), true), (Some(Vec::new()), false)] {
        let place = tempfile::tempdir().unwrap();
        for (name, bytes) in before.iter().filter(|(name, _)| *name != "MANIFEST") {
            fs::write(place.path().join(name), bytes).unwrap();
        }
        found.iter().for_each(|bytes| fs::write(place.path().join("MANIFEST"), bytes).unwrap());
        let damaged = files(place.path());
        assert_eq!(json(place.path(), &["repair", "--dry-run"]).0, 3);
        assert_eq!(files(place.path()), damaged);
        let (status, page) = json(place.path(), &["repair"]);
        assert_eq!((status, page["verdict"].as_str()), (0, Some("unclosed")), "{page}");
        let unknown = page["not_known"].to_string();
        assert_eq!(unknown.contains("its key is lost"), !key, "{unknown}");
        assert!(unknown.contains("the trim point") && unknown.contains("no intact batch there proves it"), "{unknown}");
        let after = files(place.path());
        assert_nothing_is_lost(&damaged, &after);
        assert!(!after.keys().any(|name| name.starts_with("rebuilt-")));
        assert_eq!(lines(place.path(), &["dump"]), records);
        assert_eq!(json(place.path(), &["stats"]).1["named_values"][0]["name"], "vote");
        // It goes on as the log that it was.
        let (log, recovery) = small().open(place.path()).unwrap();
        assert_eq!(recovery.meta("vote"), Some(&b"8"[..]));
        log.append(3, b"new").unwrap();
        log.close().unwrap();
        drop(log);
        assert_eq!(lines(place.path(), &["dump"]).1.len(), records.1.len() + 1);
        assert_eq!(json(place.path(), &["verify"]).0, 0);
    }
}

#[test]
fn what_was_acknowledged_behind_damage_is_set_aside_and_reported_when_manifest_is_lost_too() {
    let (_folder, path) = copy_of("damaged-byte");
    fs::remove_file(path.join("MANIFEST")).unwrap();
    let before = files(&path);
    let (status, page) = json(&path, &["repair"]);
    assert_eq!((status, page["end"].as_u64()), (0, Some(20_480)));
    assert!(
        page["not_known"].to_string().contains("what was between 20480 and 32768, which was acknowledged"),
        "{page}"
    );
    assert_nothing_is_lost(&before, &files(&path));
}

#[test]
fn a_rebuilt_log_takes_nothing_that_checksums_links_or_the_logs_id_do_not_prove() {
    let folder = tempfile::tempdir().unwrap();
    small_log(folder.path());
    fs::remove_file(folder.path().join("MANIFEST")).unwrap();
    let before = files(folder.path());
    let mut random = Random::new(7);
    for _ in 0..20 {
        let place = tempfile::tempdir().unwrap();
        for (name, bytes) in &before {
            let mut bytes = bytes.clone();
            if name.starts_with("00000000000000065536") {
                let at = 4096 + random.below(40_000);
                bytes[at] ^= 1 << random.below(8);
            }
            fs::write(place.path().join(name), bytes).unwrap();
        }
        let damaged = files(place.path());
        let (status, page) = json(place.path(), &["repair"]);
        assert_eq!(status, 0, "{page}");
        assert!(page["end"].as_u64().unwrap() < 65_536 + 45_056, "{page}");
        assert_nothing_is_lost(&damaged, &files(place.path()));
        assert_eq!(json(place.path(), &["verify"]).0, 0);
    }
}

#[test]
fn a_log_that_is_open_is_not_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = small().open(folder.path()).unwrap();
    let (status, output) = run(folder.path(), &["repair"]);
    assert_eq!(status, 3);
    assert!(String::from_utf8(output.stderr).unwrap().contains("close it there first"));
    log.close().unwrap();
}

#[test]
fn a_copy_has_records_kinds_groups_and_named_values_and_an_id_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (path, target) = (folder.path().join("log"), folder.path().join("copy"));
    let mut written = small_log(&path);
    let (log, _) = small().open(&path).unwrap();
    log.append_group(Group::new().push(4, b"one").push(5, &[6; 20_000])).unwrap();
    log.append_group(Group::new().push(4, b"two").push(5, b"three")).unwrap();
    let void = log.append(7, b"void").unwrap();
    log.truncate(void.start).unwrap();
    log.close().unwrap();
    drop(log);
    written.extend([(4, b"one".to_vec()), (5, vec![6; 20_000]), (4, b"two".to_vec()), (5, b"three".to_vec())]);
    let (status, page) = json(&path, &["copy", target.to_str().unwrap()]);
    assert_eq!((status, page["records"].as_u64(), page["named_values"].as_u64()), (0, Some(204), Some(1)));
    let mut found = Vec::new();
    let (log, recovery) = small()
        .open_with(&target, |record| {
            found.push((record.kind, record.payload.to_vec()));
            Ok::<_, core::convert::Infallible>(())
        })
        .unwrap();
    assert_eq!(found, written);
    assert_eq!((recovery.meta("vote"), recovery.void.len()), (Some(&b"8"[..]), 0));
    assert_ne!(format!("{:016x}", recovery.log_id), page["log"].as_str().unwrap());
    drop(log);
    let types = json(&target, &["stats"]).1["types"].to_string();
    assert!(types.contains(r#"{"records":1,"type":"group"}"#) && types.contains("last part"), "{types}");
    // It is not written over.
    let before = files(&target);
    assert_eq!(run(&path, &["copy", target.to_str().unwrap()]).0, 3);
    assert_eq!(files(&target), before);
}

#[test]
fn a_copied_cursor_stands_before_the_same_records_as_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let (path, target) = (folder.path().join("log"), folder.path().join("copy"));
    let (log, _) = small().open(&path).unwrap();
    // Positions before all, behind some, within parts of others, and behind all.
    let mut ends = vec![log.first()];
    for n in 0..60_u8 {
        ends.push(log.append(n, &vec![n; if n % 20 == 7 { 20_000 } else { 100 }]).unwrap().end);
    }
    let mut group = Group::new();
    ends.push(log.append_group(group.push(60, b"one").push(61, b"two")).unwrap().end);
    let void = log.append(99, b"void").unwrap();
    log.truncate(void.start).unwrap();
    ends.push(log.append(62, b"last").unwrap().end);
    for (n, end) in ends.iter().enumerate() {
        log.cursor(&format!("behind {n}")).unwrap().advance(*end).unwrap();
    }
    log.cursor("removed").unwrap().remove().unwrap();
    log.close().unwrap();
    drop(log);
    let (status, page) = json(&path, &["copy", target.to_str().unwrap()]);
    assert_eq!((status, page["cursors"].as_u64()), (0, Some(63)));
    let kinds = |path: &Path| {
        let (log, _) = small().open(path).unwrap();
        let names = log.cursors();
        let behind = |(name, at): &(String, Lsn)| {
            let (mut kinds, mut scan) = (Vec::new(), log.scan(*at..));
            while let Some(record) = scan.next().unwrap() {
                kinds.push(record.kind);
            }
            (name.clone(), kinds)
        };
        let kinds: BTreeMap<_, _> = names.iter().map(behind).collect();
        log.close().unwrap();
        kinds
    };
    let (original, copied) = (kinds(&path), kinds(&target));
    assert_eq!(copied, original);
    assert_eq!((copied["behind 58"].as_slice(), copied["behind 0"].len()), (&[58, 59, 60, 61, 62][..], 63));
    assert_eq!((copied["behind 62"].len(), copied.len()), (0, 63));
}

#[test]
fn a_rebuilt_log_says_that_segments_before_it_may_be_lost_or_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    small_log(folder.path());
    let names: Vec<_> = files(folder.path()).into_keys().filter(|name| name.ends_with(".seg")).collect();
    assert!(names.len() > 3);
    fs::remove_file(folder.path().join("MANIFEST")).unwrap();
    let not_known = |page: &Value| page["not_known"].to_string();
    let (_, page) = json(folder.path(), &["repair", "--dry-run"]);
    assert!(!not_known(&page).contains("are lost or were trimmed"), "{page}");
    fs::remove_file(folder.path().join(&names[1])).unwrap();
    let before = files(folder.path());
    for arguments in [&["repair", "--dry-run"][..], &["repair"]] {
        let (_, page) = json(folder.path(), arguments);
        let unknown = not_known(&page);
        assert!(unknown.contains("batches between 65536 and 131072 are lost or were trimmed"), "{unknown}");
        assert!(unknown.contains("which begin at 0, are set aside"), "{unknown}");
    }
    assert_nothing_is_lost(&before, &files(folder.path()));
    assert_eq!(json(folder.path(), &["verify"]).1["first"], 131_072);
}

#[test]
fn a_damaged_log_is_copied_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("copy");
    let to = target.to_str().unwrap();
    assert_eq!(run(&vector("damaged-byte"), &["copy", to]).0, 3);
    assert!(!target.exists());
    let (status, page) = json(&vector("damaged-byte"), &["copy", to, "--damaged"]);
    assert_eq!((status, page["records"].as_u64()), (2, Some(5)));
    assert_eq!(json(&target, &["verify"]).0, 0);
    // Nothing acknowledged is missing in the copy of a torn log.
    let target = folder.path().join("torn");
    assert_eq!(json(&vector("torn"), &["copy", target.to_str().unwrap()]).0, 0);
    assert_eq!(json(&target, &["verify"]).0, 0);
}

/// `ringlog bench` as a writer in another process.
fn writer(path: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(PROGRAM);
    command.arg("bench").arg(path).args(arguments).stdout(Stdio::null()).spawn().unwrap()
}

fn wait(mut child: Child) {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < HANGS, "a child hangs");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
}

/// Checks that the records of each thread of `bench` are all there, in order, once; and counts them.
fn check_numbers<'a>(records: impl Iterator<Item = &'a Value>) -> BTreeMap<u64, u64> {
    let mut next = BTreeMap::new();
    for record in records {
        let hex = record["hex"].as_str().unwrap();
        let number = |at: usize| u64::from_str_radix(&hex[at..at + 16], 16).unwrap().swap_bytes();
        let expected = next.entry(number(0)).or_insert(0);
        assert_eq!(number(16), *expected, "of thread {}", number(0));
        *expected += 1;
    }
    next
}

#[test]
fn copies_of_a_log_that_is_being_written_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut bench =
        writer(&path, &["--mode", "commit", "--seconds", "3", "--size", "2000", "--segment-size", "262144"]);
    let (mut copies, mut beside, mut begun) = (0, 0, Instant::now());
    loop {
        let is_over = bench.try_wait().unwrap().is_some();
        let target = folder.path().join(format!("copy-{copies}"));
        // Until the log is there.
        if run(&path, &["inspect"]).0 == 3 {
            assert!(begun.elapsed() < HANGS, "no log");
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        begun = Instant::now();
        let (status, page) = json(&path, &["copy", target.to_str().unwrap()]);
        assert_eq!(status, 0, "{page}");
        beside += u32::from(page["open_elsewhere"] == true);
        let (status, verdict) = json(&target, &["verify"]);
        assert_eq!((status, verdict["verdict"].as_str()), (0, Some("clean")));
        let (_, printed) = lines(&target, &["dump", "--payload", "hex", "--bytes", "16"]);
        let copied: u64 = check_numbers(printed.iter()).values().sum();
        copies += 1;
        if is_over {
            assert!(beside > 0 && copied > 0, "{copies} copies");
            break;
        }
    }
    wait(bench);
}

#[test]
fn following_a_log_that_another_process_writes_prints_each_record_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let options = || Log::options().segment_size(1 << 20).ring(4, 64 << 10);
    options().open(&path).unwrap().0.close().unwrap();
    let mut tail = Command::new(PROGRAM);
    tail.args(["tail", "-f", "-n", "100000", "--payload", "hex", "--bytes", "16"]).arg(&path);
    let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (lines_of, stdout) = mpsc::channel();
    let printed = BufReader::new(tail.stdout.take().unwrap()).lines();
    let reader = thread::spawn(move || printed.map_while(Result::ok).try_for_each(|line| lines_of.send(line)));
    // Over a restart of the writer, by commits and by streams, of records shorter and longer than a buffer.
    let rounds = [("commit", "100", "300"), ("append", "1000", "5000"), ("append", "20", "300000")];
    let mut printed = Vec::new();
    for (mode, records, size) in rounds {
        let bench =
            ["--append", "--threads", "3", "--mode", mode, "--records", records, "--size", size, "--seconds", "60"];
        let bench = writer(&path, &bench);
        let wanted = 3 * records.parse::<usize>().unwrap();
        let lines = (0..wanted).map_while(|_| stdout.recv_timeout(HANGS).ok());
        let lines: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
        let numbers = check_numbers(lines.iter());
        assert_eq!((lines.len(), numbers.len()), (wanted, 3));
        printed.extend(lines);
        wait(bench);
    }
    tail.kill().unwrap();
    let mut said = String::new();
    tail.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    reader.join().unwrap().unwrap();
    assert_eq!((said.as_str(), stdout.try_iter().next()), ("", None));
    tail.wait().unwrap();
    assert_eq!(lines(&path, &["dump", "--payload", "hex", "--bytes", "16"]), (0, printed));
}

#[test]
fn a_log_that_is_being_written_is_neither_torn_nor_damaged_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = small().open(folder.path()).unwrap();
    log.append(0, &[1; 5000]).unwrap();
    log.sync().unwrap();
    let (stop, mut looks) = (AtomicBool::new(false), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                log.append(1, &n.to_le_bytes().repeat(300)).unwrap();
                if n.is_multiple_of(50) {
                    log.sync().unwrap();
                    log.trim(Lsn::new(log.durable().get().saturating_sub(1_000_000))).unwrap();
                }
                n += 1;
                thread::sleep(Duration::from_micros(100));
            }
        });
        let look = |n: usize| {
            let arguments: &[&str] = [&["verify"][..], &["inspect"], &["tail"], &["verify", "--fast"]][n % 4];
            let (status, output) = run(folder.path(), arguments);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            looks += u32::from(said.contains("\"open\""));
            (status, format!("{arguments:?}: {said} {}", String::from_utf8_lossy(&output.stderr)))
        };
        let bad = (0..40).map(look).find(|(status, _)| *status != 0);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(bad, None);
    });
    assert!(looks > 0);
    log.sync().unwrap();
    // Damage is damage, whether the log is open or not.
    let (_, page) = json(folder.path(), &["inspect"]);
    let first = page["batches"][0]["address"].as_u64().unwrap();
    let path = folder.path().join(format!("{first:020}.seg"));
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 200] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (status, page) = json(folder.path(), &["verify"]);
    assert_eq!((status, page["verdict"].as_str(), &page["open_elsewhere"]), (2, Some("damaged"), &true.into()));
}

#[test]
fn a_reader_of_the_output_that_leaves_ends_the_command_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = Log::options().open(folder.path()).unwrap();
    for n in 0..20_000_u32 {
        log.append(0, &n.to_le_bytes().repeat(10)).unwrap();
    }
    log.close().unwrap();
    for form in ["--text", "--json"] {
        let mut dump = Command::new(PROGRAM);
        dump.args(["dump", form]).arg(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut dump = dump.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(dump.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        let output = dump.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr)), (Some(0), "".into()), "{form}");
    }
}

#[test]
fn payloads_names_and_paths_cannot_steer_a_terminal() {
    let evil = "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\r\u{8}\u{7f}";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("log{evil}"));
    let (log, _) = small().cookie(evil).open(&path).unwrap();
    log.append(0, evil.as_bytes()).unwrap();
    log.append(1, &[evil.as_bytes(), &[0xff, 0x9b]].concat()).unwrap();
    log.set_meta(evil, evil.as_bytes()).unwrap();
    log.close().unwrap();
    let missing = folder.path().join(evil);
    for place in [&path, &missing] {
        for arguments in READERS {
            for form in ["--text", "--json"] {
                let (_, output) = run(place, &[arguments, &[form]].concat());
                for said in [output.stdout, output.stderr] {
                    let said = String::from_utf8(said).unwrap();
                    let bad = said.chars().find(|char| (char.is_control() && *char != '\n') || *char == '\u{202e}');
                    assert_eq!(bad, None, "{arguments:?} {form}: {said:?}");
                }
            }
        }
    }
    // And JSON gives it back.
    assert_eq!(lines(&path, &["dump"]).1[0]["utf8"], evil);
}

#[test]
fn bench_measures_and_leaves_a_good_log_and_takes_no_directory_that_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let arguments = ["bench", "--records", "50", "--threads", "2", "--seconds", "20"];
    let (status, page) = json(&path, &arguments);
    let rates = page["rates"].as_array().unwrap();
    assert_eq!((status, rates.len()), (0, 2));
    assert!(rates.iter().all(|row| row["records"] == 100 && row["records_per_second"].as_f64().unwrap() > 0.0));
    assert!(rates[1]["median_in_us"].as_f64().unwrap() > 0.0);
    let printed = lines(&path, &["dump", "--payload", "hex"]).1;
    assert_eq!(check_numbers(printed.iter()), BTreeMap::from([(0, 100), (1, 100)]));
    assert_eq!(json(&path, &["verify"]).1["verdict"], "clean");
    let before = files(&path);
    assert_eq!(run(&path, &arguments).0, 3);
    assert_eq!(files(&path), before);
    assert_eq!(run(&path, &[&arguments[..], &["--append"]].concat()).0, 0);
    assert_eq!(lines(&path, &["dump"]).1.len(), 400);
    fs::create_dir(folder.path().join("photos")).unwrap();
    fs::write(folder.path().join("photos/1.jpg"), b"no log").unwrap();
    for more in [&[][..], &["--append"]] {
        assert_eq!(run(&folder.path().join("photos"), &[&arguments[..], more].concat()).0, 3);
    }
    assert_eq!(files(&folder.path().join("photos")).len(), 1);
    for bad in [["--segment-size", "1000"], ["--size", "1"], ["--threads", "0"], ["--seconds", "-1"]] {
        assert_eq!(run(&folder.path().join("bad"), &[&arguments[..1], &bad].concat()).0, 3, "{bad:?}");
    }
    assert!(!folder.path().join("bad").exists());
}

#[test]
fn no_bytes_make_the_command_panic() {
    let seed = std::env::var("RINGLOG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::process::id().into());
    println!("RINGLOG_SEED={seed}");
    let mut random = Random::new(seed);
    let mut statuses = [0; 4];
    for round in 0..12 {
        let (folder, path) = copy_of(["unclosed", "torn", "gap", "clean"][round % 4]);
        let names: Vec<_> = files(&path).into_keys().filter(|name| name != "LOCK" && name != "expected.txt").collect();
        for _ in 0..=random.below(4) {
            let file = path.join(&names[random.below(names.len())]);
            let mut bytes = fs::read(&file).unwrap();
            match random.below(4) {
                0 => bytes.truncate(random.below(bytes.len() + 1)),
                1 => bytes = (0..random.below(20_000)).map(|_| random.next() as u8).collect(),
                _ if bytes.is_empty() => {}
                _ => {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
            }
            fs::write(file, bytes).unwrap();
        }
        for arguments in READERS {
            statuses[run(&path, arguments).0 as usize] += 1;
        }
        run(&path, &["copy", folder.path().join("copy").to_str().unwrap(), "--damaged"]);
        let before = files(&path);
        let status = run(&path, &["repair"]).0;
        assert_nothing_is_lost(&before, &files(&path));
        assert_eq!(run(&path, &["verify"]).0, status);
    }
    assert!(statuses[2] > 0 && statuses[3] > 0, "{statuses:?}");
}

/// `docs/COMMAND.md`, with each transcript as the command prints it now.
fn transcripts() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/COMMAND.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(vector("")).unwrap() {
        let name = entry.unwrap().file_name();
        fs::create_dir(folder.path().join(&name)).unwrap();
        for (file, bytes) in files(&vector(name.to_str().unwrap())) {
            fs::write(folder.path().join(&name).join(file), bytes).unwrap();
        }
    }
    let (mut printed, mut is_transcript) = (String::new(), false);
    for line in page.lines() {
        is_transcript = if is_transcript { line != "```" } else { line == "```console" };
        let Some(command) = line.strip_prefix("$ ").filter(|_| is_transcript) else {
            // What the command printed at another time.
            if !is_transcript || line == "```console" {
                printed.extend([line, "\n"]);
            }
            continue;
        };
        printed.extend([line, "\n"]);
        let (command, shows_status) =
            command.strip_suffix("; echo $?").map_or((command, false), |command| (command, true));
        let arguments: Vec<_> = command.split(' ').collect();
        if let ["rm", file] = arguments[..] {
            fs::remove_file(folder.path().join(file)).unwrap();
            continue;
        }
        let mut program = Command::new(PROGRAM);
        program.args(&arguments[1..]).args((!arguments.contains(&"--json")).then_some("--text"));
        let output = program.current_dir(folder.path()).output().unwrap();
        for said in [output.stdout, output.stderr] {
            printed += str::from_utf8(&said).unwrap();
        }
        if shows_status {
            printed += &format!("{}\n", output.status.code().unwrap());
        }
    }
    printed
}

/// `RINGLOG_WRITE_TRANSCRIPTS=1` writes them anew.
#[test]
fn the_transcripts_in_the_documents_are_what_the_command_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/COMMAND.md");
    let printed = transcripts();
    if std::env::var_os("RINGLOG_WRITE_TRANSCRIPTS").is_some() {
        fs::write(&path, &printed).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), printed);
}
