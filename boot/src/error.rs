//! What can stop a boot.

use core::fmt;

use crate::image::ImageError;
use crate::multiboot2::Multiboot2Error;
use crate::paging::MapError;
use crate::pvh::PvhError;

/// Why the kernel could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootError {
    /// The loader did not identify itself.
    UnknownProtocol,
    /// The entry code ran twice.
    Reentered,
    /// The PVH start info is unusable.
    Pvh(PvhError),
    /// The Multiboot2 information is unusable.
    Multiboot2(Multiboot2Error),
    /// The kernel's image lies where it must not.
    Image(ImageError),
    /// The kernel's `BootloaderConfig` cannot be read.
    Config(&'static str),
    /// The kernel's `BootloaderConfig` asks for a larger stack than `entry!` reserves.
    Stack {
        /// The size asked for, in bytes.
        asked: u64,
        /// The size there is, in bytes.
        reserved: u64,
    },
    /// Page tables could not be made.
    Map(MapError),
}

impl fmt::Display for BootError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownProtocol => {
                out.write_str("entered by neither PVH nor Multiboot2 (wrong magic number)")
            }
            Self::Reentered => out.write_str("the entry code ran twice"),
            Self::Pvh(error) => error.fmt(out),
            Self::Multiboot2(error) => error.fmt(out),
            Self::Image(error) => error.fmt(out),
            Self::Config(reason) => write!(out, "the kernel's BootloaderConfig: {reason}"),
            Self::Stack { asked, reserved } => write!(
                out,
                "the kernel's BootloaderConfig asks for a stack of {asked} bytes, but boot::entry! \
                 reserves {reserved}: use boot::entry!(stack_size = {asked})"
            ),
            Self::Map(error) => error.fmt(out),
        }
    }
}

impl core::error::Error for BootError {}

impl From<PvhError> for BootError {
    fn from(error: PvhError) -> Self {
        Self::Pvh(error)
    }
}

impl From<Multiboot2Error> for BootError {
    fn from(error: Multiboot2Error) -> Self {
        Self::Multiboot2(error)
    }
}

impl From<ImageError> for BootError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<MapError> for BootError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}
