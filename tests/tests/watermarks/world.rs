//! What several suites start from.

use mm::addr::Order;
use mm::system::{Block, Memory};
use mm::zone::Zone;
use mm_tests::sim::{Machine, SimConfig, SimPlatform};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) type Handle<'m, C> = Block<&'m Memory<SimPlatform<C>>>;

pub(crate) fn order(order: u8) -> Order {
    Order::new(order).unwrap()
}

/// A machine with one zone.
pub(crate) fn machine<C: SimConfig>(mib: u64) -> Machine<C> {
    Machine::new().ram(16 * MIB, mib * MIB).boot()
}

/// That zone.
pub(crate) fn zone<C: SimConfig>(machine: &Machine<C>) -> &Zone {
    machine.zones().find(|zone| zone.is_managed()).unwrap()
}
