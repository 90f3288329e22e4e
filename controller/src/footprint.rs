//! Gives back the memory of code that only the start needed.
//!
//! Most of what a controller at rest has in memory is its own program: the command line's grammar, the reading of
//! kubeconfigs, the first lists. The kernel keeps those pages mapped as long as nobody else wants memory, and counts them.
//! Dropped, they come back one by one when they are needed again, from the page cache.

use std::fs;

/// The mappings in `maps` (the text of `/proc/self/maps`) that hold `program` itself and are never written: its code, and
/// the read-only data at the file's beginning.
fn read_only_parts(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let path = fields.nth(2)?;
        // Data that the loader relocates is readable only as well, but written before; it never lies at the beginning.
        let untouched = rights == "r-xp" || (rights == "r--p" && offset.bytes().all(|digit| digit == b'0'));
        let (start, end) = range.split_once('-')?;
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        (untouched && path == program).then_some((address(start)?, address(end)?))
    };
    maps.lines().filter_map(parse).collect()
}

/// Drops the program's own pages from memory. Linux only; where it cannot be done nothing happens.
pub fn give_back() {
    let (Ok(maps), Ok(program)) = (fs::read_to_string("/proc/self/maps"), std::env::current_exe()) else { return };
    for (start, end) in read_only_parts(&maps, &program.to_string_lossy()) {
        drop_pages(start, end);
    }
}

/// Drops the pages of a mapping that [`read_only_parts`] names.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn drop_pages(start: usize, end: usize) {
    let address = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: MADV_DONTNEED takes no mapping away. On a private mapping of a file it drops the pages, and the next access
    // reads them from the file again. That loses what was written to them: nothing was, as the range is one mapping that
    // this process has from its start (`/proc/self/maps`), that is not writable, and that the loader did not relocate
    // either: code is position-independent (a text relocation would need a writable segment), and the segment at the
    // beginning of the file is not in PT_GNU_RELRO, which lies within the writable one. The program's file is not
    // replaced in place while it runs: Linux refuses to write to it (ETXTBSY).
    let result = unsafe { rustix::mm::madvise(address, end - start, rustix::mm::Advice::LinuxDontNeed) };
    if let Err(error) = result {
        tracing::debug!(%error, "Pages of the program stay in memory.");
    }
}

#[cfg(not(target_os = "linux"))]
fn drop_pages(_: usize, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_programs_own_pages_that_nobody_writes() {
        let maps = "\
55c49a675000-55c49ad6d000 r--p 00000000 fe:00 123 /usr/local/bin/tidegate
55c49ad6d000-55c49ca12000 r-xp 006f7000 fe:00 123 /usr/local/bin/tidegate
55c49ca12000-55c49cacb000 r--p 0239c000 fe:00 123 /usr/local/bin/tidegate
55c49cacb000-55c49cacd000 rw-p 02455000 fe:00 123 /usr/local/bin/tidegate
7f0000000000-7f0000100000 r-xp 00000000 fe:00 9 /lib/x86_64-linux-gnu/libc.so.6
7f0000200000-7f0000300000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]
";
        let parts = read_only_parts(maps, "/usr/local/bin/tidegate");
        assert_eq!(parts, [(0x55c4_9a67_5000, 0x55c4_9ad6_d000), (0x55c4_9ad6_d000, 0x55c4_9ca1_2000)]);
    }

    #[test]
    fn the_program_goes_on_after_giving_its_pages_back() {
        let before: Vec<String> = (0..1000).map(|n| format!("{n:x}")).collect();
        give_back();
        let after: Vec<String> = (0..1000).map(|n| format!("{n:x}")).collect();
        assert_eq!(before, after);
        assert_eq!(serde_json::json!({"a": [1, 2]}).to_string(), r#"{"a":[1,2]}"#);
    }
}
