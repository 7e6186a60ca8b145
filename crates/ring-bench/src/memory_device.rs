//! A block device in memory, where a sync takes microseconds: zram with a file system on it. Needs root and the
//! kernel's module.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::log::Outcome;

const SIZE: &str = "2G";

#[derive(Debug)]
pub struct MemoryDevice {
    number: u32,
    folder: TempDir,
}

impl MemoryDevice {
    pub fn new() -> Outcome<Self> {
        // May be there already, or built in.
        let _ = run("modprobe", &["zram"]);
        let number = fs::read_to_string("/sys/class/zram-control/hot_add")?.trim().parse()?;
        // From here on, dropping takes the device away again.
        let this = Self { number, folder: TempDir::new()? };
        fs::write(format!("/sys/block/zram{number}/disksize"), SIZE)?;
        run("mkfs.ext4", &["-q", &this.device()])?;
        run("mount", &[&this.device(), &this.folder().to_string_lossy()])?;
        Ok(this)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn device(&self) -> String {
        format!("/dev/zram{}", self.number)
    }
}

impl Drop for MemoryDevice {
    fn drop(&mut self) {
        // What of it was never there cannot be taken away.
        let _ = run("umount", &[&self.folder().to_string_lossy()]);
        let _ = fs::write("/sys/class/zram-control/hot_remove", self.number.to_string());
    }
}

fn run(program: &str, arguments: &[&str]) -> Outcome<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
