//! The `bcosc` command.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    keep_freed_memory();
    cli::main()
}

/// A proof allocates and frees a large tensor per layer. By default, glibc returns each to the kernel and
/// faults it in again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code)]
fn keep_freed_memory() {
    const LARGEST: libc::c_int = 32 << 20;
    const KEPT: libc::c_int = 256 << 20;
    // SAFETY: this sets two limits of the allocator, before there is another thread. It matters to speed
    // alone whether they are accepted.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}
