//! Saying that RAM is free is a promise.
//~ E0133

use mm::mem::RamClaim;

pub fn claim() -> RamClaim {
    RamClaim::new()
}
