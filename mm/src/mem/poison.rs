//! Fill patterns, with the values of the field so that dumps are recognisable
//! (Linux `include/linux/poison.h`).

/// A free page, while page poisoning is on (Linux: `PAGE_POISON`).
pub const PAGE_FREE: u8 = 0xaa;

/// A free object, where a cache poisons its objects (Linux: `POISON_FREE`), …
pub const OBJECT_FREE: u8 = 0x6b;
/// … and its last byte (Linux: `POISON_END`).
pub const OBJECT_END: u8 = 0xa5;
/// Bytes between objects that nobody uses (Linux: `POISON_INUSE`).
pub const OBJECT_PADDING: u8 = 0x5a;
/// Around an object that is free (Linux: `SLUB_RED_INACTIVE`), …
pub const RED_FREE: u8 = 0xbb;
/// … and around one that has an owner (Linux: `SLUB_RED_ACTIVE`).
pub const RED_LIVE: u8 = 0xcc;
