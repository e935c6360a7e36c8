//! The CPUs' parts in TLB shootdowns.
#![forbid(unsafe_code)]

use super::{BringUpError, Builder};
use crate::platform::{NodeId, Platform};
use crate::sync::shootdown::{Requests, Seat, Shootdown};

impl<P: Platform> Builder<'_, P> {
    /// This CPU runs; the others take part when they are started.
    pub(super) fn tlb(&mut self) -> Result<Shootdown, BringUpError> {
        let requests = Requests::new();
        let here = usize::try_from(self.platform.current_cpu().0).unwrap_or(usize::MAX);
        let seats = self.by_cpu(NodeId(0), |cpu| match cpu == here {
            true => Seat::running(&requests),
            false => Seat::offline(&requests),
        })?;
        Ok(Shootdown::new(requests, seats))
    }
}
