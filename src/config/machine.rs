//! What the machine offers: defaults for memory and threads.

use std::num::NonZeroUsize;

/// Least memory the program works with by default, in bytes: below it sorting and hashing spill all the time.
const LEAST_MEMORY: u64 = 512 << 20;

/// Half of the machine's memory, or of the container's where that is less, but at least 512 MiB; in bytes.
pub(super) fn default_memory() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let total = machine_memory().into_iter().chain(container_memory(read)).min();
    usize::try_from((total.unwrap_or(0) / 2).max(LEAST_MEMORY)).unwrap_or(usize::MAX)
}

/// As many threads as the program may run at once; one where the system does not say.
pub(super) fn default_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(target_os = "linux")]
fn machine_memory() -> Option<u64> {
    meminfo_total(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

#[cfg(target_os = "macos")]
fn machine_memory() -> Option<u64> {
    let answer = std::process::Command::new("/usr/sbin/sysctl").args(["-n", "hw.memsize"]).output().ok()?;
    String::from_utf8(answer.stdout).ok()?.trim().parse().ok()
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn machine_memory() -> Option<u64> {
    None
}

#[cfg(any(target_os = "linux", test))]
fn meminfo_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// The limits of the control groups (version 2 and 1) a container sees as its own root. `max`, or a number
/// larger than any machine, means none; the machine's own memory is then less.
fn container_memory(read: impl Fn(&str) -> Option<String>) -> Vec<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .filter_map(|path| read(path)?.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_memory_is_at_least_the_least() {
        assert!(default_memory() as u64 >= LEAST_MEMORY);
    }

    #[test]
    fn the_machines_memory_is_read_in_bytes() {
        assert_eq!(meminfo_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16384 * 1024));
        assert_eq!(meminfo_total("nothing"), None);
    }

    #[test]
    fn a_containers_limit_counts_and_no_limit_does_not() {
        let limited = container_memory(|path| path.ends_with("memory.max").then(|| "1073741824\n".to_owned()));
        assert_eq!(limited, [1 << 30]);
        assert!(container_memory(|_| Some("max\n".to_owned())).is_empty());
    }
}
