//! How CPUs come up, and work all at once; or are said to be left out.

use libtest_mimic::Failed;

use crate::succeeds_and_says;

/// Boots whose output tells how the CPUs came up.
pub(crate) struct Cpus {
    /// Name of the test, after `cpus::`.
    pub(crate) name: &'static str,
    /// The runner's options.
    pub(crate) options: &'static str,
    /// The commands.
    pub(crate) commands: &'static str,
    /// Lines that must be printed.
    pub(crate) says: &'static [&'static str],
}

/// Machines with so and so many CPUs, all of which work at once.
pub(crate) const CPUS: &[Cpus] = &[
    cpus(
        "one",
        "--cpus 1",
        "cpus; stress 10000",
        &["1 CPUs online", "stress: no violations"],
    ),
    cpus(
        // So few pageblocks that some are kept for urgent requests, and pairs of them come apart.
        "one_with_little_memory",
        "--memory 32M",
        "stress 20000 2; stress 20000 3; stress 20000 4; stress 20000 5; stress 20000 6",
        &["stress: no violations"],
    ),
    cpus(
        "two_on_pc",
        "--cpus 2 --machine pc",
        "cpus; stress --cpus 2 20000",
        &["2 CPUs online", "stress: no violations"],
    ),
    cpus(
        "four_on_microvm",
        "--cpus 4 --machine microvm --memory 128M",
        "cpus; stress --cpus 4 40000",
        &["4 CPUs online", "stress: no violations"],
    ),
    cpus(
        "four_under_uefi",
        "--cpus 4 --firmware uefi --memory 1G",
        "cpus; stress --cpus 4 20000",
        &["4 CPUs online", "stress: no violations"],
    ),
    cpus(
        // Where each call takes most of a stack.
        "two_unoptimised",
        "--cpus 2 --debug",
        "ktest selftest::stacks::*,selftest::grace::*",
        &["KTEST done 11 0"],
    ),
    cpus(
        "sixty_four",
        "--cpus 64",
        "cpus; stress --cpus 64 32000; ktest selftest::threads*,selftest::hotplug::an_offline*",
        &["64 CPUs online", "stress: no violations"],
    ),
    cpus(
        "one_goes_offline_and_comes_back",
        "--cpus 3",
        "cpu 1 offline; cpus; stress --cpus 3 6000; cpu 1 online; on 1 echo back again; cpus",
        &[
            "  1     1  online, now offline\n",
            "2 CPUs online\n",
            "stress: no violations",
            "\nback again\n",
            "3 CPUs online\n",
        ],
    ),
    cpus(
        "threads_that_move_at_each_tick",
        "--cpus 4 --cmdline sched=migrate --profile debug",
        "stress --cpus 4 20000; ps",
        &["stress: no violations", " kworker/3\n"],
    ),
    cpus(
        "counting_instructions",
        "--cpus 4 --icount",
        "cpus; stress --cpus 4 4000",
        &["4 CPUs online", "stress: no violations"],
    ),
    cpus(
        "one_does_not_answer",
        "--cpus 4 --cmdline deaf=2",
        "cpus; on 2 echo third of three; stress --cpus 3 3000",
        &[
            "-     2  does not answer",
            "3 CPUs online",
            "third of three",
            "stress: no violations",
        ],
    ),
    cpus(
        "some_left_out",
        "--cpus 4 --cmdline maxcpus=2",
        "cpus",
        &["-     3  left out", "2 CPUs online"],
    ),
    cpus(
        "some_not_there_yet",
        "--qemu-arg -smp --qemu-arg 2,maxcpus=4",
        "cpus",
        &["-     3  disabled by the firmware", "2 CPUs online"],
    ),
];

/// The CPUs come up, or are said to be left out.
pub(crate) fn come_up(case: &Cpus) -> Result<(), Failed> {
    succeeds_and_says(case.options, case.commands, case.says)
}

const fn cpus(
    name: &'static str,
    options: &'static str,
    commands: &'static str,
    says: &'static [&'static str],
) -> Cpus {
    Cpus {
        name,
        options,
        commands,
        says,
    }
}
