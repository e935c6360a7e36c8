//! Nodes: what the firmware's SRAT and SLIT say, as far as it can be believed.

use super::MEMORY;
use crate::acpi::{self, Acpi};
use crate::arch::local;
use acpi_tables::srat::MemoryAffinity;
use alloc::vec::Vec;
use core::fmt;
use mm::addr::{PhysAddr, PhysRange};
use mm::memblock::nodes::NodeRange;
use mm::memblock::params::Params;
use mm::memblock::{Memblock, RegionFlags};
use mm::numa::NodeMask;
use mm::platform::{CpuId, NodeId};
use mm::zone::Node;
use mm::zone::distance::{Distances, LOCAL, REMOTE};
use spin::Once;

/// The machine's nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// How many there are, those without memory included.
    pub(super) count: usize,
    /// Distances, row by row.
    matrix: Vec<u8>,
    /// By CPU, in the order in which they will be started.
    cpus: Vec<NodeId>,
}

static NODES: Once<Nodes> = Once::new();

/// The node of a CPU: 0 where nothing is known. A CPU that does not answer leaves its number to the
/// next one, which then counts as near to where that one would have been.
pub(super) fn node_of(cpu: CpuId) -> NodeId {
    let nodes = NODES.get();
    let index = usize::try_from(cpu.0).unwrap_or(usize::MAX);
    let node = nodes.and_then(|nodes| nodes.cpus.get(index));
    node.copied().unwrap_or_default()
}

/// Says which node each range of RAM belongs to. A table that contradicts itself or leaves too much
/// out is not believed: then there is one node.
pub(super) fn assign(memblock: &mut Memblock, params: &Params) -> &'static Nodes {
    NODES.call_once(|| {
        let acpi = acpi::get();
        let domains = domains(acpi);
        let claims: Vec<NodeRange> = claims(acpi, &domains).collect();
        let outcome = memblock.set_nodes(MEMORY.platform(), &claims);
        match outcome {
            Ok(()) if !claims.is_empty() => {
                log_claims(acpi, &domains);
                if params.movable_node {
                    spare_hotplug(memblock, acpi);
                }
                Nodes::known(acpi, &domains)
            }
            Ok(()) => Nodes::one(),
            Err(error) => {
                if !claims.is_empty() {
                    log::warn!("NUMA: one node, as the SRAT cannot be right: {error}");
                }
                Nodes::one()
            }
        }
    })
}

impl Nodes {
    fn one() -> Self {
        Self {
            count: 1,
            ..Self::default()
        }
    }

    fn known(acpi: &Acpi, domains: &[u32]) -> Self {
        let row = |from: &u32| {
            let row = acpi.distances.get(index(*from));
            let from = *from;
            domains.iter().map(move |to| {
                let known = row.and_then(|row| row.get(index(*to)));
                let default = if from == *to { LOCAL } else { REMOTE };
                known.copied().unwrap_or(default)
            })
        };
        Self {
            count: domains.len(),
            matrix: domains.iter().flat_map(row).collect(),
            cpus: cpus(acpi, domains),
        }
    }

    /// How far they are from each other.
    pub(super) fn distances(&self) -> Distances<'_> {
        Distances::new(self.count, &self.matrix).unwrap_or(Distances::UNKNOWN)
    }
}

fn log_claims(acpi: &Acpi, domains: &[u32]) {
    for (memory, claim) in acpi.memory_nodes.iter().filter_map(|memory| {
        let claim = claim(memory, domains)?;
        Some((memory, claim))
    }) {
        let NodeRange { range, node } = claim;
        let hotplug = if memory.is_hot_pluggable {
            " hotplug"
        } else {
            ""
        };
        log::info!("SRAT: Node {node} {range}{hotplug}");
    }
}

/// `movable_node`: memory that may be unplugged is for movable pages only, except that of nodes
/// which are in use already.
fn spare_hotplug(memblock: &mut Memblock, acpi: &Acpi) {
    let pluggable = acpi
        .memory_nodes
        .iter()
        .filter(|memory| memory.is_hot_pluggable);
    let ranges: Vec<PhysRange> = pluggable.filter_map(range).collect();
    if let Err(error) = memblock.spare_hotplug(MEMORY.platform(), &ranges) {
        log::warn!("movable_node: {error}");
        return;
    }
    let mut movable = NodeMask::EMPTY;
    for region in memblock.memory() {
        if region.flags.contains(RegionFlags::HOTPLUG) {
            let _ = movable.insert(region.node.unwrap_or_default());
        }
    }
    match movable.is_empty() {
        true => log::warn!("movable_node: no node may be unplugged"),
        false => log::info!(
            "movable_node: memory of nodes {} is movable",
            movable.list()
        ),
    }
}

fn index(domain: u32) -> usize {
    usize::try_from(domain).unwrap_or(usize::MAX)
}

/// Proximity domains by node: as Linux numbers them, in the order in which the SRAT names them, CPUs
/// before memory.
fn domains(acpi: &Acpi) -> Vec<u32> {
    let cpus = acpi.cpu_nodes.iter().map(|cpu| cpu.domain);
    let memory = acpi
        .memory_nodes
        .iter()
        .filter(|memory| memory.end().is_some());
    let mut domains = Vec::new();
    for domain in cpus.chain(memory.map(|memory| memory.domain)) {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    domains
}

fn node(domain: u32, domains: &[u32]) -> Option<NodeId> {
    let place = domains.iter().position(|known| *known == domain)?;
    u16::try_from(place).ok().map(NodeId)
}

fn claims(acpi: &Acpi, domains: &[u32]) -> impl Iterator<Item = NodeRange> {
    let memory = acpi.memory_nodes.iter();
    memory.filter_map(move |memory| claim(memory, domains))
}

fn claim(memory: &MemoryAffinity, domains: &[u32]) -> Option<NodeRange> {
    Some(NodeRange {
        range: range(memory)?,
        node: node(memory.domain, domains)?,
    })
}

fn range(memory: &MemoryAffinity) -> Option<PhysRange> {
    PhysRange::new(PhysAddr::new(memory.base), PhysAddr::new(memory.end()?))
}

/// The node of each CPU that can be started: the boot CPU first, then in the MADT's order.
fn cpus(acpi: &Acpi, domains: &[u32]) -> Vec<NodeId> {
    let me = local::boot_cpu().apic_id();
    let others = acpi.cpus.iter().filter(|cpu| cpu.is_enabled);
    let others = others.map(|cpu| cpu.apic_id).filter(|id| *id != me);
    let node_of = |apic_id: u32| {
        let mut known = acpi.cpu_nodes.iter();
        let named = known.find(|cpu| cpu.apic_id == apic_id);
        named.and_then(|cpu| node(cpu.domain, domains))
    };
    core::iter::once(me)
        .chain(others)
        .map(|apic_id| node_of(apic_id).unwrap_or_default())
        .collect()
}

/// Logs whom each node asks, where there are several, as Linux does.
pub(super) fn log_orders() {
    let nodes = MEMORY.nodes();
    for node in nodes.iter().filter(|_| nodes.len() > 1) {
        log::info!("Fallback order for Node {}: {}", node.id(), Order(node));
    }
}

/// A node and those that it asks, in this order.
struct Order<'a>(&'a Node);

impl fmt::Display for Order<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.0.id();
        let mut all = core::iter::once(&own).chain(self.0.others());
        all.try_for_each(|node| write!(f, "{node} "))
    }
}
