//! Gives back the memory of code that only the start needed.
//!
//! Most of what a controller at rest has in memory is its own program: the command line's grammar, the reading of
//! kubeconfigs, the first lists. The kernel keeps those pages mapped as long as nobody else wants memory, and counts them.
//! Given back, they come one by one when they are needed again, from the program's file.

use std::fs;

/// The mappings in `maps` (the text of `/proc/self/maps`) that hold `program` itself and are not written to.
fn read_only_parts(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let path = fields.nth(3)?;
        let (start, end) = range.split_once('-')?;
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        (!rights.contains('w') && path == program).then_some((address(start)?, address(end)?))
    };
    maps.lines().filter_map(parse).collect()
}

/// Gives the pages of the program itself back to the kernel. Linux only; where it cannot be done nothing happens.
pub fn give_back() {
    let (Ok(maps), Ok(program)) = (fs::read_to_string("/proc/self/maps"), std::env::current_exe()) else { return };
    for (start, end) in read_only_parts(&maps, &program.to_string_lossy()) {
        page_out(start, end);
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn page_out(start: usize, end: usize) {
    let address = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: MADV_PAGEOUT changes where the pages are, never what they hold and never whether they can be accessed: a
    // page of a file is read from the file again, one that was changed (by the loader) goes to swap or stays. The range
    // is that of a mapping of this process.
    let result = unsafe { rustix::mm::madvise(address, end - start, rustix::mm::Advice::LinuxPageOut) };
    if let Err(error) = result {
        tracing::debug!(%error, "Pages of the program stay in memory.");
    }
}

#[cfg(not(target_os = "linux"))]
fn page_out(_: usize, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_programs_own_pages_that_are_not_written_to() {
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
        let code = [(0x55c4_9a67_5000, 0x55c4_9ad6_d000), (0x55c4_9ad6_d000, 0x55c4_9ca1_2000)];
        assert_eq!(parts, [code[0], code[1], (0x55c4_9ca1_2000, 0x55c4_9cac_b000)]);
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
