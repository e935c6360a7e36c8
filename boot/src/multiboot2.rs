//! The Multiboot2 boot protocol: the information structure GRUB passes in `ebx`.
//!
//! Layout after the Multiboot2 specification 2.0, section 3. [`parse`] is a total function: what
//! it cannot read is a [`Multiboot2Error`]. The E820-like map (tag 6) is preferred; it is complete
//! under EFI too, where GRUB makes it from the EFI map with boot-services memory as available,
//! having ended boot services. The EFI map (tag 17) serves when there is no other.

use core::fmt;

use bootloader_api::info::MemoryRegionKind;

use crate::bytes::{PhysMemory, u16_at, u32_at, u64_at};
use crate::handoff::{Escapes, Handoff, Protocol, RangeKind, RawFramebuffer};
use crate::regions::Regions;
use crate::warning::Warning;

/// No real structure is longer; a larger size is a lie.
const SIZE_LIMIT: u32 = 0x10_0000;
const HEADER_SIZE: usize = 8;
const MAP_ENTRY_SIZE: usize = 24;
const EFI_ENTRY_SIZE: usize = 40;

const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const LOADER_NAME: u32 = 2;
const MODULE: u32 = 3;
const MAP: u32 = 6;
const FRAMEBUFFER: u32 = 8;
const RSDP_1: u32 = 14;
const RSDP_2: u32 = 15;
const EFI_MAP: u32 = 17;
const EFI_BOOT_SERVICES: u32 = 18;

/// What is wrong with a Multiboot2 information structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiboot2Error {
    /// The structure is out of reach, or not aligned to 8.
    Unreadable {
        /// Its physical address.
        at: u64,
    },
    /// The total size is too small, or larger than 1 MiB.
    Size {
        /// The size given.
        found: u32,
    },
    /// A tag runs past the end of the structure, or is shorter than its fixed part.
    Tag {
        /// The tag's type.
        kind: u32,
        /// Its size.
        size: u32,
        /// Its offset in the structure.
        offset: usize,
    },
    /// There is no end tag.
    EndMissing,
    /// The entries of a memory map are shorter than the specification has them, or the last one
    /// is cut.
    MapEntries {
        /// The size of an entry.
        entry_size: u32,
        /// The size of all of them.
        size: usize,
    },
    /// There is no memory map of either kind.
    MapMissing,
    /// A string has no end within its tag.
    Unterminated {
        /// The tag's type.
        kind: u32,
    },
    /// A module ends before it starts.
    Module {
        /// Its start.
        start: u32,
        /// Its end.
        end: u32,
    },
}

impl fmt::Display for Multiboot2Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Multiboot2 information: ")?;
        match self {
            Self::Unreadable { at } => write!(out, "out of reach or unaligned, at {at:#x}"),
            Self::Size { found } => write!(out, "a total size of {found} bytes makes no sense"),
            Self::Tag { kind, size, offset } => write!(
                out,
                "tag {kind} of {size} bytes at offset {offset} is too short or runs past the end"
            ),
            Self::EndMissing => out.write_str("no end tag"),
            Self::MapEntries { entry_size, size } => write!(
                out,
                "a memory map of {size} bytes cannot consist of entries of {entry_size}"
            ),
            Self::MapMissing => out.write_str("no memory map"),
            Self::Unterminated { kind } => write!(out, "the string of tag {kind} has no end"),
            Self::Module { start, end } => {
                write!(out, "a module ends at {end:#x} before its start {start:#x}")
            }
        }
    }
}

impl core::error::Error for Multiboot2Error {}

/// A tag: its type, its offset in the structure, its bytes with the header.
#[derive(Debug, Clone, Copy)]
struct Tag<'a> {
    kind: u32,
    offset: usize,
    bytes: &'a [u8],
}

impl Tag<'_> {
    fn error(&self) -> Multiboot2Error {
        Multiboot2Error::Tag {
            kind: self.kind,
            size: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
            offset: self.offset,
        }
    }
}

/// What was found on the way through the tags.
#[derive(Debug, Default)]
struct Seen<'a> {
    command_line: Option<&'a [u8]>,
    escapes: Escapes,
    map: bool,
    efi_map: Option<Tag<'a>>,
    efi_boot_services: bool,
    modules: usize,
    rsdp_2: bool,
}

/// Reads the information structure at physical address `at`.
///
/// # Errors
///
/// [`Multiboot2Error`] names what is truncated or nonsense; `handoff` and `regions` then hold
/// what was read before.
pub fn parse(
    memory: &impl PhysMemory,
    at: u64,
    handoff: &mut Handoff,
    regions: &mut Regions<'_>,
) -> Result<(), Multiboot2Error> {
    let bytes = structure(memory, at)?;
    handoff.set_protocol(Protocol::Multiboot2);
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    handoff.reserve(RangeKind::Multiboot2Information, at, length);

    let mut seen = Seen::default();
    let mut offset = HEADER_SIZE;
    loop {
        let tag = tag_at(bytes, offset)?;
        if tag.kind == END {
            break;
        }
        read_tag(&tag, at, &mut seen, handoff, regions)?;
        offset = offset
            .saturating_add(tag.bytes.len())
            .checked_next_multiple_of(8)
            .ok_or(Multiboot2Error::EndMissing)?;
    }
    finish(&seen, handoff, regions)
}

fn structure(memory: &impl PhysMemory, at: u64) -> Result<&[u8], Multiboot2Error> {
    let unreadable = Multiboot2Error::Unreadable { at };
    if !at.is_multiple_of(8) {
        return Err(unreadable);
    }
    let head = memory.bytes(at, 8).ok_or(unreadable)?;
    let size = u32_at(head, 0).ok_or(unreadable)?;
    // The fixed part and an end tag.
    if !(16..=SIZE_LIMIT).contains(&size) {
        return Err(Multiboot2Error::Size { found: size });
    }
    memory.bytes(at, size.into()).ok_or(unreadable)
}

fn tag_at(bytes: &[u8], offset: usize) -> Result<Tag<'_>, Multiboot2Error> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let missing = Multiboot2Error::EndMissing;
    let kind = u32_at(rest, 0).ok_or(missing)?;
    let size = u32_at(rest, 4).ok_or(missing)?;

    let error = Multiboot2Error::Tag { kind, size, offset };
    let length = usize::try_from(size).map_err(|_| error)?;
    if length < HEADER_SIZE {
        return Err(error);
    }
    let bytes = rest.get(..length).ok_or(error)?;
    Ok(Tag {
        kind,
        offset,
        bytes,
    })
}

fn read_tag<'a>(
    tag: &Tag<'a>,
    at: u64,
    seen: &mut Seen<'a>,
    handoff: &mut Handoff,
    regions: &mut Regions<'_>,
) -> Result<(), Multiboot2Error> {
    match tag.kind {
        COMMAND_LINE => seen.command_line = Some(text(tag)?),
        LOADER_NAME if text(tag)?.starts_with(b"GRUB") => seen.escapes = Escapes::Grub,
        MODULE => {
            read_module(tag, handoff)?;
            seen.modules = seen.modules.saturating_add(1);
        }
        MAP => {
            read_map(tag, regions)?;
            seen.map = true;
        }
        FRAMEBUFFER => read_framebuffer(tag, handoff)?,
        // The new RSDP is better than the old one, whichever comes first.
        RSDP_1 if !seen.rsdp_2 => handoff.rsdp = Some(content_address(tag, at)),
        RSDP_2 => {
            handoff.rsdp = Some(content_address(tag, at));
            seen.rsdp_2 = true;
        }
        EFI_MAP => seen.efi_map = Some(*tag),
        EFI_BOOT_SERVICES => seen.efi_boot_services = true,
        _ => {}
    }
    Ok(())
}

/// Returns the string in a tag, without its end.
fn text<'a>(tag: &Tag<'a>) -> Result<&'a [u8], Multiboot2Error> {
    let kind = tag.kind;
    let text = tag.bytes.get(HEADER_SIZE..).unwrap_or_default();
    let end = text.iter().position(|byte| *byte == 0);
    end.and_then(|end| text.get(..end))
        .ok_or(Multiboot2Error::Unterminated { kind })
}

/// Returns the physical address of what follows a tag's header.
fn content_address(tag: &Tag<'_>, at: u64) -> u64 {
    let offset = tag.offset.saturating_add(HEADER_SIZE);
    at.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
}

fn read_module(tag: &Tag<'_>, handoff: &mut Handoff) -> Result<(), Multiboot2Error> {
    let start = u32_at(tag.bytes, 8).ok_or(tag.error())?;
    let end = u32_at(tag.bytes, 12).ok_or(tag.error())?;
    let length = end
        .checked_sub(start)
        .ok_or(Multiboot2Error::Module { start, end })?;
    handoff.add_module(start.into(), length.into());
    Ok(())
}

fn read_map(tag: &Tag<'_>, regions: &mut Regions<'_>) -> Result<(), Multiboot2Error> {
    for entry in entries(tag, MAP_ENTRY_SIZE)? {
        let start = u64_at(entry, 0).ok_or(tag.error())?;
        let size = u64_at(entry, 8).ok_or(tag.error())?;
        let kind = u32_at(entry, 16).ok_or(tag.error())?;
        regions.push_bios(start, size, kind);
    }
    Ok(())
}

/// Splits a map tag into its entries, of a size that the tag gives and that is at least `least`.
fn entries<'a>(
    tag: &Tag<'a>,
    least: usize,
) -> Result<core::slice::ChunksExact<'a, u8>, Multiboot2Error> {
    let entry_size = u32_at(tag.bytes, 8).ok_or(tag.error())?;
    let all = tag.bytes.get(16..).ok_or(tag.error())?;
    let error = Multiboot2Error::MapEntries {
        entry_size,
        size: all.len(),
    };

    let size = usize::try_from(entry_size).map_err(|_| error)?;
    if size < least || !all.len().is_multiple_of(size) {
        return Err(error);
    }
    Ok(all.chunks_exact(size))
}

fn read_framebuffer(tag: &Tag<'_>, handoff: &mut Handoff) -> Result<(), Multiboot2Error> {
    const RGB: u8 = 1;
    const TEXT: u8 = 2;
    let byte = |offset: usize| tag.bytes.get(offset).copied();

    let fields = || {
        Some(RawFramebuffer {
            address: u64_at(tag.bytes, 8)?,
            pitch: u32_at(tag.bytes, 16)?,
            width: u32_at(tag.bytes, 20)?,
            height: u32_at(tag.bytes, 24)?,
            bits_per_pixel: byte(28)?,
            positions: [0; 3],
            sizes: [0; 3],
        })
    };
    let mut framebuffer = fields().ok_or(tag.error())?;
    let kind = byte(29).ok_or(tag.error())?;
    if kind == TEXT {
        return Ok(());
    }
    if kind != RGB {
        handoff.warn(Warning::FramebufferIgnored);
        return Ok(());
    }

    // Two reserved bytes at 30, then position and size of red, green, blue.
    let colours = u16_at(tag.bytes, 36).and(tag.bytes.get(32..38));
    let colours = colours.ok_or(tag.error())?;
    if let [red, reds, green, greens, blue, blues] = *colours {
        framebuffer.positions = [red, green, blue];
        framebuffer.sizes = [reds, greens, blues];
    }
    handoff.framebuffer = Some(framebuffer);
    Ok(())
}

fn finish(
    seen: &Seen<'_>,
    handoff: &mut Handoff,
    regions: &mut Regions<'_>,
) -> Result<(), Multiboot2Error> {
    if let Some(text) = seen.command_line {
        handoff.set_command_line(text, seen.escapes);
    }
    if seen.efi_boot_services {
        handoff.warn(Warning::EfiBootServices);
    }
    if seen.modules > 1 {
        let count = seen.modules.saturating_sub(1);
        handoff.warn(Warning::ModulesIgnored { count });
    }
    if seen.map {
        return Ok(());
    }
    let tag = seen.efi_map.ok_or(Multiboot2Error::MapMissing)?;
    handoff.warn(Warning::EfiMapOnly);
    read_efi_map(&tag, !seen.efi_boot_services, regions)
}

/// Reads an EFI memory map; `ended` says whether boot services have left their memory.
fn read_efi_map(
    tag: &Tag<'_>,
    ended: bool,
    regions: &mut Regions<'_>,
) -> Result<(), Multiboot2Error> {
    for entry in entries(tag, EFI_ENTRY_SIZE)? {
        let kind = u32_at(entry, 0).ok_or(tag.error())?;
        let start = u64_at(entry, 8).ok_or(tag.error())?;
        let pages = u64_at(entry, 24).ok_or(tag.error())?;
        // A count whose bytes do not fit becomes a region up to the last address.
        let size = pages
            .saturating_mul(0x1000)
            .min(u64::MAX.wrapping_sub(start));
        let kind = match kind {
            // Conventional; and after the end of boot services their code and data, and the
            // loader's.
            7 => MemoryRegionKind::Usable,
            1..=4 if ended => MemoryRegionKind::Usable,
            other => MemoryRegionKind::UnknownUefi(other),
        };
        regions.push_firmware(start, size, kind);
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests may add")]
mod tests;
