//! Nobody can make a block of frames they do not have.
//~ E0451

use mm::system::{Block, Home};

pub fn forge<H: Home>(home: H) -> Block<H> {
    Block { held: unreachable!() }
}
