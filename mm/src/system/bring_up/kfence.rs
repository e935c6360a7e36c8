//! The sampling guard pool, if it is asked for.
#![forbid(unsafe_code)]

use super::{BringUpError, Builder};
use crate::memblock::NodeChoice;
use crate::platform::Platform;
use crate::slab::Kfence;
use crate::system::Options;

impl<P: Platform> Builder<'_, P> {
    /// Makes the pool. Without one, memory comes up all the same, and the summary says why.
    pub(super) fn kfence(&mut self, options: &Options) -> Result<Option<Kfence>, BringUpError> {
        let interval = options.kfence_sample_interval;
        if interval == 0 {
            return Ok(None);
        }
        let (bytes, align) = Kfence::POOL;
        // Whoever has that little memory does without.
        let Ok(pool) = self.take(bytes, align, NodeChoice::Any) else {
            return Ok(None);
        };
        let table = self.take(Kfence::table_bytes(), 64, NodeChoice::Any)?;
        let seed = self.platform.random_seed();
        match Kfence::new(self.platform, (pool, table), interval, seed) {
            Ok(kfence) => Ok(Some(kfence)),
            Err((error, ram)) => {
                self.summary.no_kfence = Some(error);
                if let Some(ram) = ram {
                    let _ = self.memblock.free_ram(self.platform, ram);
                }
                Ok(None)
            }
        }
    }
}
