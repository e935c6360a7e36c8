//! The caches that are there from the beginning.
#![forbid(unsafe_code)]

use super::{BringUpError, Builder, Cpus};
use crate::memblock::NodeChoice;
use crate::platform::Platform;
use crate::slab::Caches;

impl<P: Platform> Builder<'_, P> {
    /// The caches of `kmalloc`, and the ways of CPUs to them.
    pub(super) fn caches(&mut self, nodes: usize, known: &Cpus) -> Result<Caches, BringUpError> {
        let cpus = self.platform.cpus();
        let bytes = Caches::bytes_for(cpus, nodes).unwrap_or(u64::MAX);
        self.summary.cache_bytes = bytes;
        let ram = self.take(bytes, 64, NodeChoice::Any)?;
        let seed = self.platform.random_seed();
        let caches = Caches::bring_up(self.platform, ram, (cpus, nodes), seed)?;
        caches.iter().for_each(|cache| known.make_way(cache));
        Ok(caches)
    }
}
