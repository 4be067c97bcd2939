//! What this process uses of the machine, as the kernel tells it.

use rustix::time::{ClockId, clock_gettime};

/// What this process uses. What cannot be known is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// Memory that is really there, in bytes.
    pub resident_bytes: Option<u64>,
    /// Open descriptors; Linux 6.2 and later says so without a walk over them.
    pub open_descriptors: Option<u64>,
    /// How many there may be.
    pub descriptors_limit: Option<u64>,
}

impl Usage {
    /// As it is now.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        #[allow(clippy::cast_precision_loss, reason = "a second in 2^53 is not missed")]
        let cpu_seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let open = rustix::fs::stat("/proc/self/fd").ok().map(|stat| stat.st_size as u64);
        Self {
            cpu_seconds,
            resident_bytes: resident(&status),
            open_descriptors: open.filter(|n| *n > 0),
            descriptors_limit: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .current,
        }
    }
}

fn resident(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let usage = Usage::now();
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{usage:?}");
        assert!(usage.cpu_seconds > 0.0 && usage.descriptors_limit > Some(10), "{usage:?}");
        assert_eq!(resident("VmSize:\t 9 kB\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
        assert_eq!(resident("nothing"), None);
    }
}
