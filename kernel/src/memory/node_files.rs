//! Files of `/sys/devices/system/node`, and the weights of nodes.

use super::MEMORY;
use crate::procfs::NumberedFile;
use crate::shell::{CommandError, CommandResult};
use crate::{numbered_file, proc_file};
use core::fmt::{self, Write};
use mm::numa::NodeState;
use mm::platform::NodeId;
use mm::proc;
use mm::zone::Node;

proc_file!("/sys/devices/system/node/possible", |out| {
    proc::node_list(&MEMORY, NodeState::Possible, out)
});
proc_file!("/sys/devices/system/node/online", |out| {
    proc::node_list(&MEMORY, NodeState::Online, out)
});
proc_file!("/sys/devices/system/node/has_normal_memory", |out| {
    proc::node_list(&MEMORY, NodeState::NormalMemory, out)
});
proc_file!("/sys/devices/system/node/has_memory", |out| {
    proc::node_list(&MEMORY, NodeState::Memory, out)
});
proc_file!("/sys/devices/system/node/has_cpu", |out| {
    proc::node_list(&MEMORY, NodeState::Cpu, out)
});

const NODE: NumberedFile = NumberedFile {
    before: "/sys/devices/system/node/node",
    after: "",
    count: || u16::try_from(MEMORY.nodes().len()).unwrap_or(u16::MAX),
    print: |_, _| Ok(()),
    write: None,
};

numbered_file!(NumberedFile {
    after: "/meminfo",
    print: |number, out| with_node(number, out, proc::node_meminfo),
    ..NODE
});
numbered_file!(NumberedFile {
    after: "/numastat",
    print: |number, out| with_node(number, out, proc::node_numastat),
    ..NODE
});
numbered_file!(NumberedFile {
    after: "/distance",
    print: |number, out| proc::node_distance(&MEMORY, NodeId(number), out),
    ..NODE
});
numbered_file!(NumberedFile {
    before: "/sys/kernel/mm/mempolicy/weighted_interleave/node",
    print: print_weight,
    write: Some(set_weight),
    ..NODE
});

fn with_node(
    number: u16,
    out: &mut dyn Write,
    print: fn(&Node, &mut dyn Write) -> fmt::Result,
) -> fmt::Result {
    let node = MEMORY.nodes().get(usize::from(number));
    node.map_or(Ok(()), |node| print(node, out))
}

fn print_weight(number: u16, out: &mut dyn Write) -> fmt::Result {
    let weight = MEMORY.interleave_weight(NodeId(number)).unwrap_or(1);
    writeln!(out, "{weight}")
}

/// As in Linux, an empty text or 0 gives the weight of the start.
fn set_weight(number: u16, text: &str) -> CommandResult {
    let weight = match text.trim() {
        "" | "0" => 1,
        text => text
            .parse()
            .map_err(|_| CommandError::failed(format_args!("`{text}` is not from 1 to 255")))?,
    };
    let set = MEMORY.set_interleave_weight(NodeId(number), weight);
    set.map_err(CommandError::failed)
}
