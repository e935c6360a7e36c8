//! `numactl` and `numastat`: nodes, and which of them a command's memory comes from.

use super::{Kernel, MEMORY, Pages};
use crate::arch::local::{self, CpuLocal};
use crate::arch::smp;
use crate::ktest::Failure;
use crate::sched::policy::{self, Changed};
use crate::sched::thread::{Affinity, Thread};
use crate::sched::{hotplug, spawn, with_running};
use crate::shell::interrupt::Output;
use crate::shell::{CommandError, CommandResult, no_arguments, run_inner};
use crate::{command, kprint, kprintln, ktest, ktest_assert, ktest_eq, procfs};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use mm::addr::Order;
use mm::buddy::Gfp;
use mm::numa::{Mode, NodeMask, NodeState, Policy};
use mm::platform::{CpuId, NodeId};
use mm::proc;
use mm::zone::Zone;
use mm::zone::distance::REMOTE;

command! { "numactl", "-H|-s|[POLICY] [PLACE] COMMAND [ARG...]", "show nodes or the policy, or run a command with memory of some nodes, e.g. `numactl --interleave=all stress 1000`", numactl, "  -H, --hardware                show the nodes, their CPUs, memory and distances
  -s, --show                    show the policy in force
POLICY is one of these; NODES are as in `0-1,3`, `all` or `!2` (all but 2):
  -i, --interleave=NODES        pages by turns
  -w, --weighted-interleave=NODES  by turns, as often as their weights say
  -m, --membind=NODES           from these nodes only
  -p, --preferred=NODE          from this node as long as it has some
  -P, --preferred-many=NODES    from these nodes as long as they have some
  -l, --localalloc              near to the CPU
PLACE is one of these:
  -N, --cpunodebind=NODES       on the first CPU of these nodes
  -C, --physcpubind=CPU         on this CPU" }
command! { "numastat", "", "show which nodes' memory went where", numastat }

/// What an option is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Topic {
    /// Which nodes memory comes from.
    Policy(Mode),
    /// On which nodes the command runs.
    CpuNodes,
    /// On which CPU it runs.
    Cpu,
}

/// The options, long and short.
const OPTIONS: [(&str, &str, Topic); 8] = [
    ("--interleave", "-i", Topic::Policy(Mode::Interleave)),
    (
        "--weighted-interleave",
        "-w",
        Topic::Policy(Mode::WeightedInterleave),
    ),
    ("--membind", "-m", Topic::Policy(Mode::Bind)),
    ("--preferred", "-p", Topic::Policy(Mode::Preferred)),
    ("--preferred-many", "-P", Topic::Policy(Mode::PreferredMany)),
    ("--localalloc", "-l", Topic::Policy(Mode::Local)),
    ("--cpunodebind", "-N", Topic::CpuNodes),
    ("--physcpubind", "-C", Topic::Cpu),
];

/// Options that show something.
const SHOWS: [&str; 4] = ["-H", "--hardware", "-s", "--show"];

fn numactl(arguments: &[String]) -> CommandResult {
    match arguments {
        [option] if option == "-H" || option == "--hardware" => {
            hardware();
            Ok(())
        }
        [option] if option == "-s" || option == "--show" => {
            show();
            Ok(())
        }
        arguments => run_with_policy(arguments),
    }
}

fn run_with_policy(arguments: &[String]) -> CommandResult {
    let (wish, command) = wish(arguments)?;
    if command.is_empty() {
        return Err(CommandError::usage("expected -H, -s, or a command"));
    }
    let policy = match wish.policy {
        Some((mode, nodes)) => Some(MEMORY.policy(mode, &nodes).map_err(CommandError::failed)?),
        None => policy::current(),
    };
    let _changed = Changed::to(policy);
    let words = command.to_vec();
    placed(wish.cpu, move || run_inner(&words))?
}

/// Runs `body` on a CPU, in a thread that has the policy of this one; here, if none is named.
fn placed<T: Send + 'static>(
    cpu: Option<u32>,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CommandError> {
    let Some(cpu) = cpu else { return Ok(body()) };
    let thread = spawn("numactl", Affinity::Cpu(cpu), body);
    let thread = thread.map_err(CommandError::failed)?;
    thread.join().map_err(CommandError::failed)
}

/// What is wanted before the command, if anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Wish {
    policy: Option<(Mode, NodeMask)>,
    cpu: Option<u32>,
}

impl Wish {
    /// Each topic has one option at most.
    fn has_room_for(&self, topic: Topic) -> CommandResult {
        match topic {
            Topic::Policy(_) if self.policy.is_some() => {
                Err(CommandError::usage("more than one policy"))
            }
            Topic::CpuNodes | Topic::Cpu if self.cpu.is_some() => {
                Err(CommandError::usage("more than one place"))
            }
            _ => Ok(()),
        }
    }
}

/// What the options say, and the words behind them.
fn wish(mut words: &[String]) -> Result<(Wish, &[String]), CommandError> {
    let mut wish = Wish::default();
    while let Some((word, rest)) = words.split_first() {
        if word == "--" {
            return Ok((wish, rest));
        }
        if !word.starts_with('-') {
            break;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        if SHOWS.contains(&name) {
            return Err(CommandError::usage(format_args!(
                "`{name}` shows something, and stands alone"
            )));
        }
        let known = OPTIONS
            .iter()
            .find(|(long, short, _)| name == *long || name == *short);
        let Some((_, _, topic)) = known else {
            return Err(CommandError::usage(format_args!("unknown option `{word}`")));
        };
        wish.has_room_for(*topic)?;
        words = rest;
        if *topic == Topic::Policy(Mode::Local) {
            if value.is_some() {
                return Err(CommandError::usage(format_args!("{name} takes no nodes")));
            }
            wish.policy = Some((Mode::Local, NodeMask::EMPTY));
            continue;
        }
        let value = match (value, rest.split_first()) {
            (Some(value), _) => value,
            (None, Some((value, rest))) => {
                words = rest;
                value
            }
            (None, None) => {
                return Err(CommandError::usage(format_args!("{name} which nodes?")));
            }
        };
        match topic {
            Topic::Policy(mode) => {
                let nodes = nodes(value)?;
                if *mode == Mode::Preferred && nodes.len() != 1 {
                    return Err(CommandError::usage(format_args!("{name} takes one node")));
                }
                wish.policy = Some((*mode, nodes));
            }
            Topic::CpuNodes => wish.cpu = Some(cpu_of(value)?),
            Topic::Cpu => wish.cpu = Some(cpu(value)?),
        }
    }
    Ok((wish, words))
}

/// A thread is bound to one CPU here, so that is the first that is online of the nodes.
fn cpu_of(text: &str) -> Result<u32, CommandError> {
    let nodes = nodes(text)?;
    let is_there = |cpu: &&CpuLocal| {
        hotplug::is_online(cpu) && nodes.contains(MEMORY.node_of(CpuId(cpu.id())))
    };
    let cpu = smp::cpus().find(is_there).map(CpuLocal::id);
    cpu.ok_or_else(|| CommandError::failed(format_args!("<{text}> has no CPU that is online")))
}

/// A CPU that is online.
fn cpu(text: &str) -> Result<u32, CommandError> {
    let id: Option<u32> = text.parse().ok();
    let cpu = id.and_then(smp::cpu).filter(|cpu| hotplug::is_online(cpu));
    cpu.map(CpuLocal::id)
        .ok_or_else(|| CommandError::failed(format_args!("<{text}> is not a CPU that is online")))
}

/// Nodes as `numactl` reads them: `0-1,3`, `all`, or all but some: `!2`.
fn nodes(text: &str) -> Result<NodeMask, CommandError> {
    let all = MEMORY.node_states(NodeState::Memory);
    let invalid = |reason: &dyn fmt::Display| {
        CommandError::failed(format_args!("<{text}> is invalid: {reason}"))
    };
    let (is_inverted, list) = match text.strip_prefix('!') {
        Some(list) => (true, list),
        None => (false, text),
    };
    let named = match list {
        "all" => all,
        list => list.parse().map_err(|error| invalid(&error))?,
    };
    let unknown = named.without(&MEMORY.node_states(NodeState::Possible));
    if let Some(node) = unknown.first() {
        return Err(invalid(&format_args!("there is no node {node}")));
    }
    Ok(if is_inverted {
        all.without(&named)
    } else {
        named
    })
}

/// As `numactl --show` prints it.
fn show() {
    let policy = policy::current().unwrap_or_default();
    let nodes = *policy.nodes();
    let all = MEMORY.node_states(NodeState::Memory);
    let none = NodeMask::EMPTY;
    let (mut bound, mut preferred) = (all, none);
    kprintln!("policy: {}", policy.mode());
    match policy.mode() {
        Mode::Default | Mode::Local => kprintln!("preferred node: current"),
        Mode::Bind => {
            bound = nodes;
            kprintln!("preferred node: {}", First(&nodes));
        }
        Mode::Preferred => {
            preferred = nodes;
            kprintln!("preferred node: {}", First(&nodes));
        }
        Mode::PreferredMany => {
            preferred = nodes;
            kprintln!("preferred node: {} (preferred-many)", First(&nodes));
        }
        Mode::Interleave | Mode::WeightedInterleave => show_turns(&policy),
    }
    let affinity = with_running(Thread::affinity).unwrap_or(Affinity::Any);
    let cpus = || {
        smp::cpus()
            .map(|cpu| cpu.id())
            .filter(|id| affinity.allows(*id))
    };
    kprint!("physcpubind: ");
    cpus().for_each(|id| kprint!("{id} "));
    kprintln!();
    let homes = NodeMask::of(cpus().map(|id| MEMORY.node_of(CpuId(id))));
    let homes = homes.unwrap_or_default();
    for (name, nodes) in [
        ("cpubind", &homes),
        ("nodebind", &homes),
        ("membind", &bound),
        ("preferred", &preferred),
    ] {
        kprintln!("{name}: {}", Row(nodes));
    }
}

fn show_turns(policy: &Policy) {
    let next = policy.next_turn().unwrap_or_default();
    kprintln!("preferred node: {next} (interleave next)");
    kprintln!("interleavemask: {}", Row(policy.nodes()));
    if policy.mode() == Mode::WeightedInterleave {
        kprint!("interleaveweights:");
        for node in policy.nodes().iter() {
            kprint!(" {}", MEMORY.interleave_weight(node).unwrap_or(1));
        }
        kprintln!();
    }
    kprintln!("interleavenode: {next}");
}

/// The lowest node.
struct First<'a>(&'a NodeMask);

impl fmt::Display for First<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.first().unwrap_or_default().fmt(f)
    }
}

/// Nodes, each with a blank behind it.
struct Row<'a>(&'a NodeMask);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|node| write!(f, "{node} "))
    }
}

fn numastat(arguments: &[String]) -> CommandResult {
    no_arguments(arguments)?;
    Ok(proc::numastat(&MEMORY, &mut Output)?)
}

/// As `numactl --hardware` prints it.
fn hardware() {
    let nodes = MEMORY.nodes();
    let last = nodes.len().saturating_sub(1);
    match last {
        0 => kprintln!("available: 1 nodes (0)"),
        _ => kprintln!("available: {} nodes (0-{last})", nodes.len()),
    }
    for node in nodes {
        let id = node.id();
        kprint!("node {id} cpus:");
        for cpu in smp::cpus().filter(|cpu| MEMORY.node_of(CpuId(cpu.id())) == id) {
            kprint!(" {}", cpu.id());
        }
        let sum = |count: fn(&Zone) -> u64| {
            let frames = node.zones().iter().map(count).fold(0, u64::saturating_add);
            frames >> 8
        };
        kprintln!();
        kprintln!("node {id} size: {} MB", sum(Zone::managed));
        kprintln!("node {id} free: {} MB", sum(Zone::free_frames));
    }
    kprintln!("node distances:");
    kprint!("node ");
    for node in nodes {
        kprint!("{:>3} ", node.id().0);
    }
    kprintln!();
    for from in nodes {
        kprint!("{:>3}: ", from.id().0);
        for to in nodes {
            let distance = MEMORY.distance(from.id(), to.id());
            kprint!("{:>3} ", distance.unwrap_or(REMOTE));
        }
        kprintln!();
    }
}

ktest! {
    fn numactl_understands_nodes_and_one_policy() {
        let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
        let parsed = |line: &str| {
            let words = words(line);
            wish(&words).map(|(wish, command)| {
                let policy = wish.policy.map(|(mode, nodes)| (mode, alloc::format!("{}", nodes.list())));
                ((policy, wish.cpu), command.len())
            })
        };
        let zero = || String::from("0");
        for (line, expected) in [
            ("--membind=0 echo a", ((Some((Mode::Bind, zero())), None), 2)),
            ("-m 0 -- echo", ((Some((Mode::Bind, zero())), None), 1)),
            ("--interleave 0 echo -i 1", ((Some((Mode::Interleave, zero())), None), 3)),
            ("-w 0 x", ((Some((Mode::WeightedInterleave, zero())), None), 1)),
            ("--preferred=0 x", ((Some((Mode::Preferred, zero())), None), 1)),
            ("-P 0 x", ((Some((Mode::PreferredMany, zero())), None), 1)),
            ("-l x", ((Some((Mode::Local, String::new())), None), 1)),
            ("x -m 0", ((None, None), 3)),
            ("-- -x", ((None, None), 1)),
            ("-N 0 x", ((None, Some(0)), 1)),
            ("--physcpubind=0 -m 0 x", ((Some((Mode::Bind, zero())), Some(0)), 1)),
        ] {
            ktest_eq!(parsed(line), Ok(expected));
        }
        for (line, part) in [
            ("-m", "which nodes?"),
            ("-H foo", "`-H` shows something, and stands alone"),
            ("-m 0 --show", "`--show` shows something, and stands alone"),
            ("-m 0 -i 0 x", "more than one policy"),
            ("--localalloc=0 x", "takes no nodes"),
            ("--frobnicate x", "unknown option `--frobnicate`"),
            ("-m 1023 x", "<1023> is invalid: there is no node 1023"),
            ("-m 1024 x", "<1024> is invalid: node 1024 is out of range"),
            ("-m 1-0 x", "<1-0> is invalid: a range ends before it starts"),
            ("-p !all x", "takes one node"),
            ("-N 0 -C 0 x", "more than one place"),
            ("-N !all x", "<!all> has no CPU that is online"),
            ("-C 255 x", "<255> is not a CPU that is online"),
        ] {
            match parsed(line) {
                Err(CommandError::Usage(said) | CommandError::Failed(said)) => {
                    ktest_assert!(said.contains(part), "{line}: {said}");
                }
                other => ktest_eq!((line, other), (line, Ok(((None, None), 0)))),
            }
        }
        Ok(())
    }

    fn a_policy_holds_for_a_thread_and_those_that_it_makes() {
        let all = MEMORY.node_states(NodeState::Memory);
        ktest_eq!(policy::current(), None);
        ktest_assert!(!crate::arch::running::has_policy());
        let wanted = MEMORY.policy(Mode::Interleave, &all).map_err(Failure::new)?;
        let changed = Changed::to(Some(wanted));
        ktest_assert!(crate::arch::running::has_policy());
        let inner = Changed::to(None);
        ktest_assert!(!crate::arch::running::has_policy());
        drop(inner);
        // Turns are taken from the thread's own.
        for _ in 0..3 {
            let next = policy::current().and_then(|policy| policy.next_turn());
            let pages = Pages::alloc(Kernel, Gfp::KERNEL, Order::ZERO).map_err(Failure::new)?;
            ktest_eq!(MEMORY.zone_of(pages.pfn()).map(|zone| zone.id().node), next);
        }
        let child = || (policy::current().map(|policy| policy.mode()), crate::arch::running::has_policy());
        let thread = spawn("policy", Affinity::Any, child).map_err(Failure::new)?;
        let seen = thread.join().map_err(Failure::new)?;
        ktest_eq!(seen, (Some(Mode::Interleave), true));
        drop(changed);
        ktest_eq!(policy::current(), None);
        ktest_assert!(!crate::arch::running::has_policy());
        let thread = spawn("policy", Affinity::Any, child).map_err(Failure::new)?;
        ktest_eq!(thread.join().map_err(Failure::new)?, (None, false));
        Ok(())
    }

    fn a_command_runs_on_the_cpu_that_was_named() {
        let last = smp::count().saturating_sub(1);
        let wanted = MEMORY.policy(Mode::Bind, &MEMORY.node_states(NodeState::Memory));
        let changed = Changed::to(Some(wanted.map_err(Failure::new)?));
        let seen = || (local::current_id(), policy::current().map(|policy| policy.mode()));
        for cpu in [Some(last), Some(0), None] {
            let there = placed(cpu, seen).map_err(|error| Failure::new(alloc::format!("{error:?}")))?;
            ktest_eq!((cpu, there), (cpu, (cpu.unwrap_or(local::current_id()), Some(Mode::Bind))));
        }
        drop(changed);
        Ok(())
    }

    fn files_with_a_number_are_found_and_written() {
        let weight = "/sys/kernel/mm/mempolicy/weighted_interleave/node0";
        for (path, is_there) in [
            (weight, true),
            ("/sys/devices/system/node/node0/numastat", true),
            ("/sys/devices/system/node/node1024/numastat", false),
            ("/sys/devices/system/node/nodex/numastat", false),
            ("/sys/devices/system/node/node0", false),
        ] {
            ktest_eq!((path, procfs::find_numbered(path).is_some()), (path, is_there));
        }
        ktest_eq!(procfs::write(weight, "3"), Ok(()));
        ktest_eq!(MEMORY.interleave_weight(NodeId(0)), Some(3));
        ktest_assert!(procfs::write(weight, "256").is_err());
        ktest_assert!(procfs::write("/proc/meminfo", "1").is_err());
        ktest_eq!(procfs::write(weight, "0"), Ok(()));
        ktest_eq!(MEMORY.interleave_weight(NodeId(0)), Some(1));
        Ok(())
    }
}
