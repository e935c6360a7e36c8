//! The caches that are there from the beginning.
#![forbid(unsafe_code)]

use super::{BringUpError, Builder, Cpus};
use crate::memblock::NodeChoice;
use crate::platform::Platform;
use crate::slab::{Caches, Setup, Treatment};
use crate::system::Options;

impl<P: Platform> Builder<'_, P> {
    /// The caches of `kmalloc`, and the ways of CPUs to them.
    pub(super) fn caches(
        &mut self,
        nodes: usize,
        known: &Cpus,
        options: &Options,
    ) -> Result<Caches, BringUpError> {
        let cpus = self.platform.cpus();
        let setup = Setup {
            seed: self.platform.random_seed(),
            debug: &options.slub_debug,
            treatment: Treatment {
                init_on_alloc: options.init_on_alloc,
                init_on_free: options.init_on_free,
            },
            failing: options.failslab.as_ref().map(|rule| &rule.cache),
        };
        let bytes = Caches::bytes_for(cpus, nodes, &setup).unwrap_or(u64::MAX);
        self.summary.cache_bytes = bytes;
        let ram = self.take(bytes, 64, NodeChoice::Any)?;
        let caches = Caches::bring_up(self.platform, ram, (cpus, nodes), &setup)?;
        caches.iter().for_each(|cache| known.make_way(cache, false));
        Ok(caches)
    }
}
