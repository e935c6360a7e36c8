//! What a loader told us, whatever its protocol.
//!
//! The parsers ([`pvh`](crate::pvh), [`multiboot2`](crate::multiboot2)) fill a [`Handoff`] and a
//! [`Regions`](crate::Regions) list; `start` turns both into a `BootInfo`. What `BootInfo` has no
//! field for stays reachable here.

use crate::list::List;
use crate::regions::Regions;
use crate::warning::Warning;

/// The longest command line that is kept, in bytes. Linux keeps 2048.
pub const COMMAND_LINE_CAPACITY: usize = 4096;

const PAGE: u64 = 0x1000;
const RANGES: usize = 128;
const WARNINGS: usize = 32;

/// How the kernel was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// PVH: `qemu -kernel`, Firecracker, Cloud Hypervisor.
    Pvh,
    /// Multiboot2: GRUB and others.
    Multiboot2,
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str(match self {
            Self::Pvh => "PVH",
            Self::Multiboot2 => "Multiboot2",
        })
    }
}

/// What a reserved range holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeKind {
    /// The kernel's image: text, data, bss, boot stack, `BootInfo` and the region array.
    KernelImage,
    /// Page tables made by `boot`; free once the kernel runs on its own.
    PageTables,
    /// The page tables that `boot` starts with, in the image; free once the kernel runs on its own.
    EarlyTables,
    /// The stack that the kernel starts on, in the image, and the page below it; free once the kernel runs on its own.
    BootStack,
    /// The `hvm_start_info` structure.
    StartInfo,
    /// The loader's memory map; `boot` has copied it.
    MemoryMap,
    /// The loader's command line; `boot` has copied it.
    CommandLine,
    /// The loader's list of modules.
    ModuleList,
    /// A module; the first one is the ramdisk.
    Module,
    /// The Multiboot2 information, with the RSDP copy that `BootInfo` points to.
    Multiboot2Information,
    /// The framebuffer.
    Framebuffer,
}

impl RangeKind {
    /// Returns a name for logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KernelImage => "kernel image",
            Self::PageTables => "boot page tables",
            Self::EarlyTables => "early page tables",
            Self::BootStack => "boot stack",
            Self::StartInfo => "start info",
            Self::MemoryMap => "loader memory map",
            Self::CommandLine => "command line",
            Self::ModuleList => "module list",
            Self::Module => "module",
            Self::Multiboot2Information => "Multiboot2 information",
            Self::Framebuffer => "framebuffer",
        }
    }
}

/// Physical memory that the kernel must not hand out before it is done with the contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReservedRange {
    /// What the range holds.
    pub kind: RangeKind,
    /// The first byte.
    pub start: u64,
    /// The byte after the last; never below `start`.
    pub end: u64,
}

/// What a loader did to the command line that must be undone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// Nothing.
    #[default]
    None,
    /// GRUB puts a backslash before quotes and backslashes.
    Grub,
}

/// A linear framebuffer as the loader describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFramebuffer {
    /// The physical address.
    pub address: u64,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bits of a pixel.
    pub bits_per_pixel: u8,
    /// Bit positions of red, green and blue.
    pub positions: [u8; 3],
    /// Bit counts of red, green and blue.
    pub sizes: [u8; 3],
}

/// Everything a loader told but the memory map.
///
/// # Invariants
///
/// The kept command line is UTF-8.
#[derive(Debug)]
pub struct Handoff {
    protocol: Option<Protocol>,
    command_line: List<u8, COMMAND_LINE_CAPACITY>,
    has_command_line: bool,
    ranges: List<ReservedRange, RANGES>,
    warnings: List<Warning, WARNINGS>,
    pub(crate) module: Option<ReservedRange>,
    pub(crate) rsdp: Option<u64>,
    pub(crate) framebuffer: Option<RawFramebuffer>,
}

impl Default for Handoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Handoff {
    /// Creates one that knows nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        const NOWHERE: ReservedRange = ReservedRange {
            kind: RangeKind::KernelImage,
            start: 0,
            end: 0,
        };
        Self {
            protocol: None,
            command_line: List::new(0),
            has_command_line: false,
            ranges: List::new(NOWHERE),
            warnings: List::new(Warning::MODULES_IGNORED_FILLER),
            module: None,
            rsdp: None,
            framebuffer: None,
        }
    }

    /// Returns the protocol, once one was recognised.
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// Returns the command line, if the loader gave one.
    ///
    /// Bytes that are not UTF-8 were replaced by `?`, and what is longer than
    /// [`COMMAND_LINE_CAPACITY`] was cut; each with a [`Warning`].
    #[must_use]
    pub fn command_line(&self) -> Option<&str> {
        let text = core::str::from_utf8(self.command_line.as_slice()).ok();
        text.filter(|_| self.has_command_line)
    }

    /// Returns the ranges to reserve, in no particular order; they may overlap.
    #[must_use]
    pub fn reserved_ranges(&self) -> &[ReservedRange] {
        self.ranges.as_slice()
    }

    /// Returns what was odd, in the order it was found.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        self.warnings.as_slice()
    }

    /// Returns how many more warnings there were than are kept.
    #[must_use]
    pub const fn warnings_lost(&self) -> usize {
        self.warnings.lost()
    }

    /// Returns the address of the ACPI root pointer, if the loader gave one.
    #[must_use]
    pub const fn rsdp(&self) -> Option<u64> {
        self.rsdp
    }

    /// Returns the first module.
    #[must_use]
    pub const fn module(&self) -> Option<ReservedRange> {
        self.module
    }

    /// Returns the framebuffer.
    #[must_use]
    pub const fn framebuffer(&self) -> Option<RawFramebuffer> {
        self.framebuffer
    }

    pub(crate) const fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = Some(protocol);
    }

    pub(crate) fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    /// Notes a range of `length` bytes; one that runs past the last address ends there.
    pub(crate) fn reserve(&mut self, kind: RangeKind, start: u64, length: u64) -> ReservedRange {
        let end = start.saturating_add(length);
        let range = ReservedRange { kind, start, end };
        if length == 0 {
            return range;
        }
        if self.ranges.is_full() {
            self.warn(Warning::RangeLost(range));
        }
        self.ranges.push(range);
        range
    }

    /// Notes a module; only the first becomes the ramdisk.
    pub(crate) fn add_module(&mut self, start: u64, length: u64) {
        let range = self.reserve(RangeKind::Module, start, length);
        if self.module.is_none() && length > 0 {
            self.module = Some(range);
        }
    }

    /// Forgets a ramdisk that does not lie in usable memory: reading it could fault.
    pub(crate) fn check_module(&mut self, regions: &Regions<'_>) {
        let Some(module) = self.module else {
            return;
        };
        let start = module.start.saturating_sub(module.start % PAGE);
        let end = module.end.checked_next_multiple_of(PAGE);
        if end.is_none_or(|end| regions.first_gap(start, end).is_some()) {
            self.module = None;
            self.warn(Warning::ModuleOutsideMemory(module));
        }
    }

    /// Keeps a copy of the command line.
    pub(crate) fn set_command_line(&mut self, text: &[u8], escapes: Escapes) {
        self.has_command_line = true;
        self.command_line = List::new(0);
        let mut replaced = 0_usize;
        let mut is_escaped = false;

        for chunk in text.utf8_chunks() {
            for letter in chunk.valid().chars() {
                let opens = letter == '\\' && escapes == Escapes::Grub;
                is_escaped = opens && !is_escaped;
                if !is_escaped {
                    let mut bytes = [0; 4];
                    self.push_letter(letter.encode_utf8(&mut bytes).as_bytes());
                }
            }
            for _ in chunk.invalid() {
                replaced = replaced.saturating_add(1);
                self.push_letter(b"?");
            }
        }

        if replaced > 0 {
            self.warn(Warning::CommandLineNotUtf8 { replaced });
        }
        if self.command_line.lost() > 0 {
            self.warn(Warning::CommandLineCut {
                given: text.len(),
                kept: self.command_line.as_slice().len(),
            });
        }
    }

    /// Appends a whole letter or, once one did not fit, nothing more.
    fn push_letter(&mut self, letter: &[u8]) {
        let used = self.command_line.as_slice().len();
        let fits = used.saturating_add(letter.len()) <= COMMAND_LINE_CAPACITY;
        if !fits || self.command_line.lost() > 0 {
            // INVARIANT: only whole letters are kept, so the text stays UTF-8.
            self.command_line.lose();
            return;
        }
        for byte in letter {
            self.command_line.push(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use bootloader_api::info::MemoryRegion;

    use super::{COMMAND_LINE_CAPACITY, Escapes, Handoff, RangeKind};
    use crate::regions::Regions;
    use crate::warning::Warning;

    fn kept(text: &[u8], escapes: Escapes) -> (std::string::String, Option<Warning>) {
        let mut handoff = Handoff::new();
        assert_eq!(handoff.command_line(), None);
        handoff.set_command_line(text, escapes);
        let line = handoff.command_line().unwrap().into();
        assert!(handoff.warnings().len() <= 1);
        (line, handoff.warnings().first().copied())
    }

    #[test]
    fn a_command_line_is_kept_as_it_is() {
        for line in ["", "mem=64M", r#"a\b "c d" e=\""#, "ümläut"] {
            assert_eq!(kept(line.as_bytes(), Escapes::None), (line.into(), None));
        }
    }

    #[test]
    fn the_escapes_of_grub_are_undone() {
        let given = br#"exec=\"cat a\" b\\c \'d\'"#;
        let expected = r#"exec="cat a" b\c 'd'"#;
        assert_eq!(kept(given, Escapes::Grub), (expected.into(), None));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_counted() {
        let warning = Warning::CommandLineNotUtf8 { replaced: 3 };
        let expected = ("a?b??c".into(), Some(warning));
        assert_eq!(kept(b"a\xffb\xe2\x82c", Escapes::None), expected);
    }

    #[test]
    fn a_long_command_line_is_cut_between_letters() {
        let text = "ab€".repeat(COMMAND_LINE_CAPACITY);
        let (line, warning) = kept(text.as_bytes(), Escapes::None);
        assert!(text.starts_with(&line));
        assert!((COMMAND_LINE_CAPACITY - 3..=COMMAND_LINE_CAPACITY).contains(&line.len()));
        let expected = Warning::CommandLineCut {
            given: text.len(),
            kept: line.len(),
        };
        assert_eq!(warning, Some(expected));
    }

    #[test]
    fn the_first_module_with_contents_is_the_ramdisk() {
        let mut handoff = Handoff::new();
        handoff.add_module(0x1000, 0);
        handoff.add_module(0x2000, 5);
        handoff.add_module(0x3000, 5);
        assert_eq!(handoff.module().map(|module| module.start), Some(0x2000));
        assert_eq!(handoff.reserved_ranges().len(), 2);
    }

    #[test]
    fn a_ramdisk_outside_memory_is_forgotten() {
        let mut storage = [MemoryRegion::empty(); 1];
        let mut regions = Regions::new(&mut storage, 1);
        regions.push_bios(0, 0x10_0000, 1);
        for (start, length, is_good) in [
            (0x1234, 0x100, true),
            (0xf_ff00, 0x100, true),
            (0xf_ff00, 0x101, false),
            (0x40_0000, 0x1000, false),
            (0x1000, u64::MAX, false),
        ] {
            let mut handoff = Handoff::new();
            handoff.add_module(start, length);
            handoff.check_module(&regions);
            assert_eq!(handoff.module().is_some(), is_good, "{start:#x}");
            assert_eq!(handoff.warnings().is_empty(), is_good);
        }
    }

    #[test]
    fn a_range_without_a_place_is_warned_about() {
        let mut handoff = Handoff::new();
        for number in 1..=140 {
            handoff.reserve(RangeKind::Module, number, u64::MAX);
        }
        assert!(
            handoff
                .reserved_ranges()
                .iter()
                .all(|range| range.end == u64::MAX)
        );
        assert!(matches!(handoff.warnings()[0], Warning::RangeLost(_)));
        assert_eq!(handoff.warnings_lost(), 0);
    }
}
