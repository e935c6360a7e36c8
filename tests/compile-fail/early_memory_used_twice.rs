//! A range of early memory has one user.
//~ E0382

use mm::mem::{Array, EarlyRam};
use mm::platform::Platform;

pub fn twice<P: Platform>(platform: &P, ram: EarlyRam) {
    let _ = Array::<u8>::carve(platform, ram, 1, |_| 0);
    let _ = Array::<u8>::carve(platform, ram, 1, |_| 0);
}
