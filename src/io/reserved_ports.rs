//! `ip_local_reserved_ports`: ports that the kernel gives nobody by itself.
//!
//! What is added is noted in a file first, so that it is taken away again although the process was
//! killed: at the next start. Only what was added is taken away: what others reserved, before or
//! meanwhile, stays.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::sysctl::{self, SysctlError};

const KEY: &str = "ipv4/ip_local_reserved_ports";
const RANGE_KEY: &str = "ipv4/ip_local_port_range";
/// Files are called so, and end with what they are for.
const PREFIX: &str = "reserved-ports-";

/// Ports that are reserved as long as this value lives.
#[derive(Debug)]
pub struct ReservedPorts {
    note: PathBuf,
}

/// Why they are not.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// The parameter cannot be written.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The note cannot.
    #[error("cannot write {path}: {source}")]
    Note {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ReservedPorts {
    /// Reserves a range in the calling thread's network namespace; `what` tells its note in `dir` from
    /// others.
    pub fn add(dir: &Path, what: &str, ports: RangeInclusive<u16>) -> Result<Self, ReserveError> {
        let before = Ports::parse(&sysctl::get(Path::new(KEY)).unwrap_or_default());
        let mut added = Ports::default();
        added.set(ports, true);
        added.take_away(&before);
        let note = dir.join(format!("{PREFIX}{what}"));
        fs::write(&note, added.to_string())
            .map_err(|source| ReserveError::Note { path: note.clone(), source })?;
        let reserved = Self { note };
        let mut all = before;
        all.add(&added);
        sysctl::set(Path::new(KEY), &all.to_string())?;
        Ok(reserved)
    }

    /// Takes away what a process that was killed has left in `dir`.
    pub fn restore(dir: &Path) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                drop(Self { note: entry.path() });
            }
        }
    }
}

impl Drop for ReservedPorts {
    fn drop(&mut self) {
        let Ok(text) = fs::read_to_string(&self.note) else { return };
        let mut now = Ports::parse(&sysctl::get(Path::new(KEY)).unwrap_or_default());
        now.take_away(&Ports::parse(&text));
        // The parameter is cleared by an empty line, and an empty write would be none.
        let text = format!("{now}\n");
        if sysctl::set(Path::new(KEY), &text).is_ok() {
            let _ = fs::remove_file(&self.note);
        }
    }
}

/// Ports from which the kernel chooses by itself.
pub fn automatic() -> RangeInclusive<u16> {
    let text = sysctl::get(Path::new(RANGE_KEY)).unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32_768..=60_999, // the kernel's default
    }
}

/// A set of ports as the parameter writes it: `8080,61440-65535`.
#[derive(PartialEq, Eq, Debug)]
struct Ports(Box<[bool]>);

impl Default for Ports {
    fn default() -> Self {
        Self(vec![false; 65_536].into())
    }
}

impl Ports {
    fn parse(text: &str) -> Self {
        let mut ports = Self::default();
        for part in text.split([',', '\n']).map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
                ports.set(first..=last, true);
            }
        }
        ports
    }

    fn set(&mut self, ports: RangeInclusive<u16>, on: bool) {
        for port in ports {
            self.0[usize::from(port)] = on;
        }
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, more)| *own |= more);
    }

    fn take_away(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, less)| *own &= !less);
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut at = 0;
        let mut comma = "";
        while let Some(first) = self.0[at..].iter().position(|on| *on).map(|n| at + n) {
            let end = self.0[first..].iter().position(|on| !on).map_or(65_536, |n| first + n);
            write!(f, "{comma}{first}")?;
            if end - first > 1 {
                write!(f, "-{}", end - 1)?;
            }
            comma = ",";
            at = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_reserved_stays_whether_before_or_meanwhile() {
        let mut before = Ports::parse("8080,62000-62010\n");
        let mut added = Ports::default();
        added.set(61_440..=65_535, true);
        added.take_away(&before);
        assert_eq!(added.to_string(), "61440-61999,62011-65535");
        before.add(&added);
        assert_eq!(before.to_string(), "8080,61440-65535");
        let mut meanwhile = before;
        meanwhile.set(9_000..=9_001, true);
        meanwhile.take_away(&added);
        assert_eq!(meanwhile.to_string(), "8080,9000-9001,62000-62010");
    }

    #[test]
    fn rubbish_and_nothing_are_no_ports() {
        for text in ["", "\n", "x", "9-x", "70000"] {
            assert_eq!(Ports::parse(text), Ports::default(), "{text:?}");
        }
        assert_eq!(Ports::default().to_string(), "");
        assert_eq!(Ports::parse("65535").to_string(), "65535");
    }
}
