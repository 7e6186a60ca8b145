//! Damage of each kind, at any place.

use std::sync::Arc;

use ringlog::directory::{Directory, MemoryDirectory};
use ringlog::recovery::Report;

use super::oracle::Files;
use super::world::World;

pub(crate) struct Damaged {
    pub(crate) directory: MemoryDirectory,
    pub(crate) what: String,
    /// A file of another log, or of another copy, was put there.
    pub(crate) foreign: bool,
}

const KINDS: usize = 15;

struct Place {
    name: String,
    /// In the file.
    at: usize,
}

/// `None`: this kind has nothing to damage here.
pub(crate) fn damage(world: &mut World, image: &MemoryDirectory, report: &Report) -> Option<Damaged> {
    let size = world.size;
    let files = image.contents();
    let directory = image.fork();
    let names: Vec<String> = files.keys().filter(|name| name.ends_with(".seg")).cloned().collect();
    let base = |name: &str| name[..20].parse::<u64>().unwrap();
    let low = names.first().map(|name| base(name))?;
    let blocks = ((report.end.get().max(low) - low) / 4096 + 3) as usize;
    let random = &mut world.random;
    let mut foreign = false;

    let place = |address: u64| {
        let name = format!("{:020}.seg", address / size * size);
        Place { name, at: 4096 + (address % size) as usize }
    };
    let address = low + 4096 * random.below(blocks) as u64;
    let Place { name, at } = place(address);
    let sector = at + 512 * random.below(8);
    let get = |files: &Files, name: &str, at: usize, len: usize| -> Option<Vec<u8>> {
        let file = files.get(name)?;
        Some((at..at + len).map(|at| file.get(at).copied().unwrap_or(0)).collect())
    };
    let write = |name: &str, at: usize, bytes: &[u8]| {
        let mut file = directory.contents().get(name).map_or_else(Vec::new, |file| file.to_vec());
        if file.len() < at + bytes.len() {
            file.resize(at + bytes.len(), 0);
        }
        file[at..at + bytes.len()].copy_from_slice(bytes);
        directory.put(name, file);
    };
    let batch = (!world.chain.is_empty()).then(|| world.chain[random.below(world.chain.len())].clone());

    let what = match random.below(KINDS) {
        0 | 1 => {
            // In the header, in the table, or anywhere.
            let near = random.pick(&[72, 4096]);
            let bit = random.below(near * 8);
            let byte = get(&files, &name, at + bit / 8, 1)?[0] ^ 1 << (bit % 8);
            write(&name, at + bit / 8, &[byte]);
            format!("bit {bit} of {address}")
        }
        2 => {
            get(&files, &name, 0, 1)?;
            write(&name, sector, &[0; 512]);
            format!("zero sector {} of {address}", (sector - at) / 512)
        }
        3 => {
            get(&files, &name, 0, 1)?;
            write(&name, at, &[0; 4096]);
            format!("zero block {address}")
        }
        4 | 5 => {
            get(&files, &name, 0, 1)?;
            let past: Vec<_> = world.past.iter().filter_map(|past| get(past, &name, sector, 512)).collect();
            let stale = if past.is_empty() { vec![0; 512] } else { past[random.below(past.len())].clone() };
            write(&name, sector, &stale);
            format!("stale sector {} of {address}", (sector - at) / 512)
        }
        6 => {
            let other = low + 4096 * random.below(blocks) as u64;
            let to = place(other);
            let (here, there) = (get(&files, &name, at, 4096)?, get(&files, &to.name, to.at, 4096)?);
            write(&name, at, &there);
            write(&to.name, to.at, &here);
            format!("swapped {address} and {other}")
        }
        7 | 8 => {
            let batch = batch?;
            let to = place(batch.base);
            get(&files, &to.name, 0, 1)?;
            for (n, (bytes, under)) in batch.bytes.chunks(512).zip(batch.under.chunks(512)).enumerate() {
                let at = to.at + n * 512;
                if get(&files, &to.name, at, 512).as_deref() == Some(bytes) {
                    write(&to.name, at, under);
                }
            }
            format!("lost write {}", batch.base)
        }
        9 => {
            let batch = batch?;
            get(&files, &name, 0, 1)?;
            let (own, is_lost) = (place(batch.base), random.chance(50) && batch.base != address);
            if is_lost && get(&files, &own.name, own.at, batch.bytes.len()).as_deref() == Some(&batch.bytes[..]) {
                write(&own.name, own.at, &batch.under);
            }
            let room = (size + 4096) as usize - at;
            write(&name, at, &batch.bytes[..batch.bytes.len().min(room)]);
            format!("misdirected write of {} to {address}, lost: {is_lost}", batch.base)
        }
        10 => {
            let name = &names[random.below(names.len())];
            directory.remove(name);
            format!("missing file {name}")
        }
        11 => {
            let from = &names[random.below(names.len())];
            let to = format!("{:020}.seg", low + size * random.below(names.len() + 2) as u64);
            directory.put(&to, files[from].to_vec());
            format!("{from} also as {to}")
        }
        12 => {
            let old: Vec<Arc<Vec<u8>>> = world.past.iter().filter_map(|past| past.get("MANIFEST").cloned()).collect();
            let slot = random.below(2);
            let both = random.chance(40);
            let kind = random.below(2);
            for slot in [slot, 1 - slot].into_iter().take(1 + usize::from(both)) {
                if kind == 0 || old.is_empty() {
                    write("MANIFEST", slot * 4096 + random.below(4096), &[random.next() as u8; 1]);
                } else {
                    let old = &old[random.below(old.len())];
                    let bytes: Vec<_> =
                        (slot * 4096..(slot + 1) * 4096).map(|at| old.get(at).copied().unwrap_or(0)).collect();
                    write("MANIFEST", slot * 4096, &bytes);
                }
            }
            format!("MANIFEST: slot {slot}, both: {both}, kind {kind}")
        }
        13 => {
            foreign = true;
            let from = if random.chance(50) { world.fork.as_ref().unwrap_or(&world.foreign) } else { &world.foreign };
            let others: Vec<_> = from.keys().filter(|name| name.ends_with(".seg")).collect();
            let other = others[random.below(others.len())];
            // As the file that has its name, or as another one.
            let to = if random.chance(60) { other } else { &names[random.below(names.len())] };
            directory.put(to, from[other].to_vec());
            format!("{other} of another log as {to}")
        }
        _ => {
            let name = &names[random.below(names.len())];
            if random.chance(50) {
                write(name, random.below(4096), &[random.next() as u8; 1]);
                format!("header of {name}")
            } else {
                let mut file = files[name].to_vec();
                file.truncate(random.below(file.len() + 1));
                let len = file.len();
                directory.put(name, file);
                format!("{name} cut to {len} bytes")
            }
        }
    };
    debug_assert_eq!(directory.unsynced(), 0);
    Some(Damaged { directory, what, foreign })
}
