//! Tests of the backtrace filter on canned lines, and of the symbols on this very program.

use super::{BacktraceFilter, ElfSymbols, Symbols, shortened, without_hash};

/// Describes every address by itself.
struct Echo;

impl Symbols for Echo {
    fn describe(&mut self, address: u64) -> Option<String> {
        (address & 0xfffff != 0xdead).then(|| format!("at {address:x}"))
    }
}

fn filtered(input: &str) -> String {
    String::from_utf8(BacktraceFilter::new(Echo).push(input.as_bytes())).unwrap()
}

#[test]
fn a_frame_gets_its_name_at_the_end_of_its_line() {
    assert_eq!(
        filtered("  #0 0xffffffff80001000\r\n  #1 0xffffffff80002000\n"),
        "  #0 0xffffffff80001000 at ffffffff80001000\r\n  #1 0xffffffff80002000 at ffffffff80001fff\n"
    );
}

#[test]
fn frame_0_is_taken_as_it_is_or_as_a_return_address_past_the_end_of_its_function() {
    assert_eq!(
        filtered("  #0 0x000000000000deae\n  #0 0x000000000000dead\n"),
        "  #0 0x000000000000deae at deae\n  #0 0x000000000000dead at deac\n"
    );
}

#[test]
fn other_lines_and_unknown_addresses_pass_unchanged() {
    for text in [
        "hello\r\n",
        "mm> ",
        "  #1 0x1000\n",
        "  #1 0xffffffff80002000 extra\n",
        "  #x 0xffffffff80002000\n",
        "  #1 0x000000000000deae\n",
        "\u{1b}[0m\u{e9}\n",
    ] {
        assert_eq!(filtered(text), text);
    }
}

#[test]
fn every_byte_passes_at_once_however_the_stream_is_cut() {
    let text = "mm> x\r\n  #7 0x0000000000001001\r\nend";
    let mut filter = BacktraceFilter::new(Echo);
    let mut seen = Vec::new();
    for byte in text.bytes() {
        let output = filter.push(&[byte]);
        assert_eq!(output.last(), Some(&byte));
        seen.extend(output);
    }
    assert_eq!(
        String::from_utf8(seen).unwrap(),
        "mm> x\r\n  #7 0x0000000000001001 at 1000\r\nend"
    );
}

#[test]
fn names_and_paths_lose_what_says_nothing() {
    assert_eq!(without_hash("a::b::h0123456789abcdef"), "a::b");
    assert_eq!(without_hash("a::heap"), "a::heap");
    assert_eq!(
        shortened("/rustc/abc/library/core/src/panicking.rs"),
        "library/core/src/panicking.rs"
    );
    assert_eq!(
        shortened("/h/.cargo/registry/src/index-1/spin-0.12.3/src/lib.rs"),
        "spin-0.12.3/src/lib.rs"
    );
    assert_eq!(shortened("src/main.rs"), "src/main.rs");
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs");
    assert_eq!(shortened(own), "boot/runner/src/lib.rs");
}

#[inline(never)]
fn a_function_to_find() -> u64 {
    core::hint::black_box(7)
}

#[test]
fn debug_information_names_function_file_and_line() {
    // The file's first mapping holds its first byte: addresses in the file count from there.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let own = std::env::current_exe().unwrap();
    let first = maps
        .lines()
        .find(|line| line.ends_with(own.to_str().unwrap()))
        .unwrap();
    let base = u64::from_str_radix(first.split_once('-').unwrap().0, 16).unwrap();
    let function: fn() -> u64 = a_function_to_find;
    let loaded = format!("{function:p}");
    let loaded = u64::from_str_radix(loaded.trim_start_matches("0x"), 16).unwrap();

    assert_eq!(function(), 7);
    let described = ElfSymbols::of(&own)
        .describe(loaded.wrapping_sub(base))
        .unwrap();
    assert!(described.contains("a_function_to_find"), "{described}");
    assert!(
        described.contains("boot/runner/src/symbols_tests.rs:"),
        "{described}"
    );
}

#[test]
fn a_file_without_symbols_describes_nothing() {
    assert_eq!(ElfSymbols::of("/dev/null".as_ref()).describe(0x1000), None);
}
