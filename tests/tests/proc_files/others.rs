//! A parser that others wrote for Linux's files reads ours, and finds our numbers: that of the crate `procfs-core`, for the files that it
//! knows.

use mm::buddy::Gfp;
use mm::memblock::params::Params;
use mm::memblock::sanitize::FirmwareMap;
use mm::proc;
use mm::system::Memory;
use mm_tests::maps::FirmwareMapFile;
use mm_tests::window::Window;
use procfs_core::{FromBufRead, Iomem, Meminfo, VmStat};

use super::{order, parse, text, with_every_zone};

#[test]
fn meminfo_is_read_by_others() {
    let machine = with_every_zone();
    let block = machine.alloc_block(Gfp::KERNEL, order(7)).unwrap();
    let object = machine.kmalloc(100, Gfp::KERNEL).unwrap();
    let ours = text(|out| proc::meminfo(&machine, out));
    let read = Meminfo::from_buf_read(ours.as_bytes()).unwrap();

    assert_eq!(read.mem_total, machine.managed_frames() * 4096);
    assert_eq!(read.mem_free, machine.free_frames() * 4096);
    let named = parse::meminfo(&ours);
    let found = [
        ("MemAvailable", read.mem_available),
        ("Slab", Some(read.slab)),
        ("SReclaimable", read.s_reclaimable),
        ("SUnreclaim", read.s_unreclaim),
        ("PageTables", read.page_tables),
        ("Percpu", read.per_cpu),
        ("CmaTotal", read.cma_total),
        ("CmaFree", read.cma_free),
    ];
    for (name, value) in found {
        assert_eq!(value, Some(named[name] * 1024), "{name}");
    }
    assert!(read.slab > 0);
    // Of files, swap and programs there is nothing, and nothing is what others read.
    let none = [
        read.buffers,
        read.cached,
        read.swap_cached,
        read.active,
        read.inactive,
        read.swap_total,
        read.swap_free,
        read.dirty,
        read.writeback,
        read.mapped,
        read.committed_as,
    ];
    assert_eq!(none, [0; 11]);
    drop(block);
    // SAFETY: allocated above, and not used any more.
    unsafe { machine.kfree(object) }.unwrap();
    machine.finish();
}

#[test]
fn meminfo_is_read_before_there_is_memory() {
    let memory = Memory::new(Window::none());
    let ours = text(|out| proc::meminfo(&memory, out));
    let read = Meminfo::from_buf_read(ours.as_bytes()).unwrap();
    assert_eq!((read.mem_total, read.vmalloc_total), (0, 0));
}

#[test]
fn vmstat_is_read_by_others() {
    let machine = with_every_zone();
    let block = machine.alloc_block(Gfp::KERNEL, order(3)).unwrap();
    let ours = text(|out| proc::vmstat(&machine, out));
    let VmStat(read) = VmStat::from_buf_read(ours.as_bytes()).unwrap();
    assert_eq!(read.len(), ours.lines().count(), "no name twice");
    let named = parse::vmstat(&ours);
    for (name, value) in &read {
        assert_eq!(u64::try_from(*value).unwrap(), named[name], "{name}");
    }
    let free = i64::try_from(machine.free_frames()).unwrap();
    assert_eq!(read["nr_free_pages"], free);
    assert!(read["pgalloc_normal"] + read["pgalloc_movable"] >= 8);
    drop(block);
    machine.finish();
}

#[test]
fn iomem_of_every_firmware_map_is_read_by_others() {
    let mut ranges = 0;
    for map in FirmwareMapFile::all() {
        for (_, results) in map.results() {
            let params = Params::parse(&results.command_line(), |_| {});
            let entries = map.entries();
            let firmware = FirmwareMap::new(&entries, 46).edited(&params);
            let ours = text(|out| proc::iomem(proc::firmware_resources(firmware), out));
            let Iomem(read) = Iomem::from_buf_read(ours.as_bytes()).unwrap();
            let named = parse::iomem(&ours);
            assert_eq!(read.len(), named.len(), "{}", map.name);
            for ((depth, read), named) in read.iter().zip(&named) {
                assert_eq!(*depth, named.depth, "{}", map.name);
                assert_eq!(read.address, (named.start, named.last), "{}", map.name);
                assert_eq!(read.name, named.name, "{}", map.name);
                ranges += 1;
            }
        }
    }
    assert!(ranges > 1000, "only {ranges} ranges");
}
