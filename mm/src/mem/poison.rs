//! Fill patterns, with the values of the field so that dumps are recognisable
//! (Linux `include/linux/poison.h`).

/// A free page, while page poisoning is on (Linux: `PAGE_POISON`).
pub const PAGE_FREE: u8 = 0xaa;
