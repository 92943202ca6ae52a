//! What the system knows of this process, under the names that Prometheus's own libraries use.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::family::{PROCESS_CPU, PROCESS_FDS, PROCESS_MAX_FDS, PROCESS_RESIDENT, PROCESS_START, PROCESS_VIRTUAL};
use super::text::Page;

/// Writes the `process_*` metrics. Reads `/proc`: not for a worker's thread. What the system does not tell is left out.
pub fn write(page: &mut Page, started: u64) {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u32::try_from(spent.tv_nsec).unwrap_or_default();
    let spent = Duration::new(u64::try_from(spent.tv_sec).unwrap_or_default(), nanos);
    page.family(&PROCESS_CPU).value(&[], spent.as_secs_f64());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (family, name) in [(&PROCESS_RESIDENT, "VmRSS:"), (&PROCESS_VIRTUAL, "VmSize:")] {
        let mut samples = page.family(family);
        if let Some(bytes) = memory(&status, name) {
            samples.value(&[], bytes);
        }
    }
    let mut samples = page.family(&PROCESS_FDS);
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is being read.
        samples.value(&[], open.count().saturating_sub(1));
    }
    let mut samples = page.family(&PROCESS_MAX_FDS);
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        samples.value(&[], limit);
    }
    page.family(&PROCESS_START).value(&[], started);
}

/// The bytes behind `name` in `/proc/self/status`.
fn memory(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    #[test]
    fn the_system_tells_what_it_should() {
        let mut page = Page::new(Format::Prometheus);
        write(&mut page, 1_700_000_000);
        let text = page.finish();
        let value = |name: &str| -> f64 {
            let line =
                text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
            line.trim().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_start_time_seconds") > 1e9);
    }
}
