//! What the numbers are about: without it they mean nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub threads: usize,
    pub kernel: String,
    /// Device, file system and mount options under the folder that was written to.
    pub mount: String,
    /// What the kernel says of the device's cache: `write back` is a volatile one.
    pub cache: String,
    pub compiler: String,
    /// Of the checkout; `+` behind it stands for changes that were not committed.
    pub commit: String,
    pub date: String,
}

impl Machine {
    pub fn look(folder: &Path) -> Self {
        let mount = mount(folder).unwrap_or_default();
        let device = mount.split(' ').next().and_then(|device| device.strip_prefix("/dev/")).unwrap_or_default();
        let cache = fs::read_to_string(format!("/sys/block/{device}/queue/write_cache")).unwrap_or_default();
        let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        let commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
        Self {
            processor: processor().unwrap_or_default(),
            threads: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: said("uname", &["-sr"]),
            mount,
            cache: cache.trim().into(),
            compiler: said("rustc", &["--version"]),
            commit: if changed { format!("{commit}+") } else { commit },
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        }
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().into())
}

fn processor() -> Option<String> {
    let all = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = all.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']).into())
}

/// The line of `/proc/mounts` with the longest mount point that the folder lies under.
fn mount(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let all = fs::read_to_string("/proc/mounts").ok()?;
    let lines = all.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let under = lines.filter(|fields| fields.len() > 3 && folder.starts_with(fields[1]));
    let fields = under.max_by_key(|fields| fields[1].len())?;
    Some(format!("{} {} {}", fields[0], fields[2], fields[3]))
}
