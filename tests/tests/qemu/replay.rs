//! One sequence of page allocations, in the kernel under QEMU and on a simulated machine with
//! the same free memory: the frames must be the same.

use std::fmt::Write;

use boot_runner::outcome::RanCommands;
use libtest_mimic::Failed;
use mm::addr::Order;
use mm::buddy::Gfp;
use mm::platform::NodeId;
use mm_tests::sim::{Given, OnMachine, Usual};
use mm_workload::{Digest, Live, Noted};

use crate::guest;

const OPERATIONS: u64 = 100_000;
const SEED: u64 = 1;
/// As many as the kernel has.
const SLOTS: usize = 4096;

/// What a run printed.
#[derive(PartialEq, Eq)]
struct Run {
    digests: Vec<Digest>,
    /// Of all answers, and how many were frames and how many were none.
    hash: u64,
    served: u64,
    failed: u64,
}

/// The kernel on a machine with these options answers as a simulated one.
pub(crate) fn gives_the_frames_of_a_simulated_machine(options: &str) -> Result<(), Failed> {
    let commands = format!("workload {OPERATIONS} {SEED}");
    // How many pages a CPU keeps at hand follows from all memory too, and the stacks of
    // threads that see to memory would leave a pageblock of another type behind.
    let off = "percpu_pagelists=off kswapd=off grace=off populate=boot";
    let options = format!("{options} --cmdline '{off}'");
    let recorded = guest::boot(&*guest::options(&options)?, &commands)?;
    let serial = &recorded.serial;
    let outcome = recorded.finished.outcome;
    if outcome.exit_status(RanCommands::Yes) != 0 {
        return Err(format!("{outcome}\n{serial}").into());
    }
    let (free, kernel) = parse(serial).ok_or_else(|| format!("not understood:\n{serial}"))?;
    let every = kernel.digests.first().ok_or("no digest")?.requests;
    let host = play(&free, every);
    if host == kernel {
        return Ok(());
    }
    Err(difference(&free, &host, &kernel).into())
}

/// The free ranges, each with its node, in bytes.
type Free = Vec<(u16, u64, u64)>;

/// The free ranges and the run.
fn parse(serial: &str) -> Option<(Free, Run)> {
    let (mut free, mut digests, mut end) = (Vec::new(), Vec::new(), None);
    for line in serial.lines() {
        let Some(text) = line.trim().strip_prefix("workload: ") else {
            continue;
        };
        let words: Vec<_> = text
            .split([' ', ','])
            .filter(|word| !word.is_empty())
            .collect();
        match words[..] {
            ["free", start, end, "node", node] => {
                free.push((node.parse().ok()?, hex(start)?, hex(end)?));
            }
            ["digest", requests, hash] => digests.push(Digest {
                requests: requests.parse().ok()?,
                hash: hex(hash)?,
            }),
            [served, "served", failed, "failed", _, "freed", "hash", hash] => {
                end = Some((hex(hash)?, served.parse().ok()?, failed.parse().ok()?));
            }
            _ => {}
        }
    }
    let (hash, served, failed) = end?;
    let run = Run {
        digests,
        hash,
        served,
        failed,
    };
    Some((free, run))
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// The same run on a simulated machine.
fn play(free: &[(u16, u64, u64)], every: u64) -> Run {
    let given = Given::of_nodes(free);
    let own = given.own_node();
    let machine = given.boot::<Usual>();
    // As the kernel does for this run.
    machine.set_min_free_kbytes(0).unwrap();
    machine.set_watermark_scale_factor(1).unwrap();
    machine.set_lowmem_reserve_ratio([0; 5]).unwrap();
    for node in 0..own.0 {
        let weight = (node + 1) as u8;
        machine.set_interleave_weight(NodeId(node), weight).unwrap();
    }
    // The last node is there for the tables only.
    let gfp = Gfp::KERNEL | Gfp::THISNODE | Gfp::MEMALLOC | Gfp::NOWARN;
    let mut others = Vec::new();
    for order in Order::all().rev() {
        while let Ok(block) = machine.alloc_block_node(own, gfp, order) {
            others.push(block);
        }
    }
    let mut digests = Vec::new();
    let mut slots = vec![None::<Live>; SLOTS];
    let on_machine = OnMachine::new(&machine, Gfp::empty()).with_nodes(own.0.into());
    let mut pages = Noted::new(on_machine, every, |digest| digests.push(digest));
    let outcome = mm_workload::run(&mut pages, &mut slots, SEED, OPERATIONS);
    drop(others);
    machine.finish();
    Run {
        digests,
        hash: outcome.hash,
        served: outcome.served,
        failed: outcome.failed,
    }
}

fn difference(free: &[(u16, u64, u64)], host: &Run, kernel: &Run) -> String {
    let mut text = String::from("other frames than on the simulated machine\nfree at the start:");
    for (node, start, end) in free {
        let _ = write!(text, "\n  {start:#x}..{end:#x} on node {node}");
    }
    let mut pairs = host.digests.iter().zip(&kernel.digests);
    match pairs.find(|(host, kernel)| host != kernel) {
        Some((host, kernel)) => {
            let _ = write!(
                text,
                "\nfirst difference: host {host:x?}, kernel {kernel:x?}"
            );
        }
        None => {
            let lengths = (host.digests.len(), kernel.digests.len());
            let _ = write!(
                text,
                "\nno digest differs; so many on host and in QEMU: {lengths:?}"
            );
        }
    }
    let counts = |run: &Run| (run.served, run.failed);
    let _ = write!(
        text,
        "\nserved and failed: host {:?}, kernel {:?}",
        counts(host),
        counts(kernel)
    );
    text
}
