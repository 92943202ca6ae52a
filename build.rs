//! How the program is linked where it is linked whole, without the system's libraries.
//!
//! Its table of relocations is 400 KiB long and read from end to end at a start; packed it is 10. A program that is not
//! linked whole needs a libc that can unpack it wherever it runs, so that one stays as it is.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let of = |key: &str| env::var(key).unwrap_or_default();
    let is_whole = of("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static");
    let is_of_this_machine = of("HOST") == of("TARGET");
    if is_whole && of("CARGO_CFG_TARGET_ENV") == "gnu" && is_of_this_machine && libc_unpacks() {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether the libc of this machine, which becomes part of the program, knows packed relocations: since 2.36.
fn libc_unpacks() -> bool {
    let Ok(said) = Command::new("getconf").arg("GNU_LIBC_VERSION").output() else {
        return false;
    };
    // As in `glibc 2.36`.
    let said = String::from_utf8_lossy(&said.stdout);
    let minor = said.trim().strip_prefix("glibc 2.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= 36)
}
