//! The framebuffer in `bootloader_api`'s words.

use bootloader_api::info::{FrameBufferInfo, PixelFormat};

use crate::handoff::RawFramebuffer;
use crate::paging::FRAMEBUFFER_LIMIT;

/// Translates what the loader says; `None` if it makes no sense or does not fit its window.
pub(crate) fn describe(raw: &RawFramebuffer) -> Option<FrameBufferInfo> {
    let bits = raw.bits_per_pixel;
    let whole_bytes = bits != 0 && bits <= 64 && bits.is_multiple_of(8);
    if !whole_bytes || raw.address == 0 || raw.width == 0 {
        return None;
    }

    let bytes_per_pixel = usize::from(bits).checked_div(8)?;
    let width = usize::try_from(raw.width).ok()?;
    let height = usize::try_from(raw.height).ok()?;
    let pitch = usize::try_from(raw.pitch).ok()?;
    let is_wide_enough = width.checked_mul(bytes_per_pixel)? <= pitch;
    if !is_wide_enough || !pitch.is_multiple_of(bytes_per_pixel) {
        return None;
    }

    let byte_len = pitch.checked_mul(height).filter(|length| *length > 0)?;
    let length = u64::try_from(byte_len).ok()?;
    raw.address.checked_add(length)?;
    let fits = length <= FRAMEBUFFER_LIMIT;
    fits.then_some(FrameBufferInfo {
        byte_len,
        width,
        height,
        pixel_format: pixel_format(raw),
        bytes_per_pixel,
        stride: pitch.checked_div(bytes_per_pixel)?,
    })
}

const fn pixel_format(raw: &RawFramebuffer) -> PixelFormat {
    let [red, green, blue] = raw.positions;
    match (raw.sizes, red, green, blue) {
        ([8, 8, 8], 0, 8, 16) => PixelFormat::Rgb,
        ([8, 8, 8], 16, 8, 0) => PixelFormat::Bgr,
        _ => PixelFormat::Unknown {
            red_position: red,
            green_position: green,
            blue_position: blue,
        },
    }
}

#[cfg(test)]
mod tests {
    use bootloader_api::info::PixelFormat;

    use super::describe;
    use crate::handoff::RawFramebuffer;

    const VGA: RawFramebuffer = RawFramebuffer {
        address: 0xfd00_0000,
        pitch: 5120,
        width: 1280,
        height: 800,
        bits_per_pixel: 32,
        positions: [16, 8, 0],
        sizes: [8, 8, 8],
    };

    #[test]
    fn a_usual_framebuffer_is_described() {
        let info = describe(&VGA).unwrap();
        assert_eq!(info.pixel_format, PixelFormat::Bgr);
        assert_eq!((info.stride, info.bytes_per_pixel), (1280, 4));
        assert_eq!(info.byte_len, 5120 * 800);
    }

    #[test]
    fn nonsense_is_none() {
        let broken = [
            RawFramebuffer { address: 0, ..VGA },
            RawFramebuffer {
                address: u64::MAX,
                ..VGA
            },
            RawFramebuffer { pitch: 1280, ..VGA },
            RawFramebuffer { pitch: 5121, ..VGA },
            RawFramebuffer { width: 0, ..VGA },
            RawFramebuffer { height: 0, ..VGA },
            RawFramebuffer {
                height: u32::MAX,
                ..VGA
            },
            RawFramebuffer {
                bits_per_pixel: 0,
                ..VGA
            },
            RawFramebuffer {
                bits_per_pixel: 15,
                ..VGA
            },
        ];
        for raw in broken {
            assert!(describe(&raw).is_none(), "{raw:?}");
        }
    }
}
