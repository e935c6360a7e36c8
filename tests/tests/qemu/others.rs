//! What the kernel prints of its memory is read by a parser that others wrote for Linux, the crate `procfs-core`, and by the rules of
//! programs (`mm_tests::exporters`). What these find is what is seen from outside.

use std::fmt::Debug;

use boot_runner::show;
use libtest_mimic::Failed;
use mm_tests::exporters;
use mm_viewer::areas::State;
use mm_viewer::snapshot::{Snapshot, Zone};
use procfs_core::{FromBufRead, Iomem, Meminfo, VmStat};

use crate::{guest, seen};

/// What stands between two files, and around them.
const BORDER: &str = "next file";

/// `meminfo`, `vmstat` and `iomem` of a machine that did something.
pub(crate) fn read() -> Result<(), Failed> {
    let files = ["meminfo", "vmstat", "iomem"];
    let shown = files.map(|file| format!("cat /proc/{file}; echo {BORDER}"));
    let commands = format!("stress 2000; echo {BORDER}; {}", shown.join("; "));
    let options = guest::options("--memory 256M")?;
    let recorded = guest::boot(&options, &commands)?;
    let serial = recorded.serial.replace('\r', "");
    let border = format!("\n{BORDER}\n");
    // The last one's end is the next one's beginning.
    let serial = serial.replace(&border, &format!("\n{border}"));
    let texts: Vec<_> = serial.split(&border).skip(1).collect();
    let [meminfo, vmstat, iomem, _] = texts.as_slice() else {
        return Err(format!("{} files:\n{serial}", texts.len()).into());
    };

    let meminfo = Meminfo::from_buf_read(meminfo.as_bytes())?;
    let VmStat(vmstat) = VmStat::from_buf_read(vmstat.trim().as_bytes())?;
    let Iomem(iomem) = Iomem::from_buf_read(iomem.trim().as_bytes())?;
    let ram = iomem.iter().filter(|(_, range)| range.name == "System RAM");
    let ram = ram.map(|(_, range)| range.address.1 + 1 - range.address.0);
    let ram: u64 = ram.sum();
    let (total, free) = (meminfo.mem_total, meminfo.mem_free);
    if !(200 << 20..=ram).contains(&total) || free >= total || ram > 256 << 20 {
        return Err(format!("{free} of {total} bytes are free, {ram} are RAM").into());
    }
    if meminfo.slab == 0
        || meminfo.vmalloc_used == 0
        || meminfo.page_tables.is_none_or(|it| it == 0)
    {
        return Err(format!("{meminfo:?}").into());
    }
    if vmstat["pgalloc_dma32"] < 1000 {
        return Err(format!("{vmstat:?}").into());
    }
    Ok(())
}

/// The files that no crate reads, of a machine with two nodes that did something and has ended.
pub(crate) fn read_by_rules() -> Result<(), Failed> {
    let names = [
        "buddyinfo",
        "pagetypeinfo",
        "zoneinfo",
        "slabinfo",
        "vmallocinfo",
    ];
    let shown = names.map(|file| format!("cat /proc/{file}; echo {BORDER}"));
    let commands = format!(
        "stress 3000; stress slab 1000; stress vmalloc 100; echo {BORDER}; {}",
        shown.join("; ")
    );
    let options = "--memory 256M --numa 2 --cpus 2 --cmdline populate=boot";
    let folder = tempfile::tempdir()?;
    let (printed, files) = seen::ended(options, &commands, &folder.path().join("ram"))?;
    let border = format!("\n{BORDER}\n");
    let printed = printed.replace(&border, &format!("\n{border}"));
    let texts: Vec<_> = printed.split(&border).skip(1).collect();
    let [buddyinfo, pagetypeinfo, zoneinfo, slabinfo, vmallocinfo, _] = texts.as_slice() else {
        return Err(format!("{} files:\n{printed}", texts.len()).into());
    };
    let guest = show::attach(&files).map_err(|error| error.to_string())?;
    let snapshot = Snapshot::take(&guest);
    let place = |zone: &Zone| (zone.node.to_string(), zone.name.clone());
    let blocks = snapshot
        .zones
        .iter()
        .map(|zone| (place(zone), zone.blocks[..11].to_vec()));
    let blocks = blocks.collect();
    same("buddyinfo", exporters::buddyinfo(buddyinfo)?, blocks)?;
    of_types(&snapshot, pagetypeinfo)?;
    of_zones(&snapshot, zoneinfo)?;

    let caches = exporters::slabinfo(slabinfo)?;
    let told = caches.iter().map(|cache| {
        let [_, objects, _, per_slab, _] = cache.objects;
        // As many bytes of a name as an entry has room for.
        let name: String = cache.name.chars().take(16).collect();
        (name, cache.slabs[1], per_slab, objects)
    });
    let seen = snapshot.caches.iter().map(|cache| {
        let objects = cache.slabs * cache.per_slab;
        (cache.name.clone(), cache.slabs, cache.per_slab, objects)
    });
    let sorted = |caches: &mut dyn Iterator<Item = (String, u64, u64, u64)>| {
        let mut caches: Vec<_> = caches.collect();
        caches.sort();
        caches
    };
    let (mut told, mut seen) = (told, seen);
    same("slabinfo", sorted(&mut told), sorted(&mut seen))?;

    let told = exporters::vmallocinfo(vmallocinfo)?;
    if let Some(wrong) = told
        .iter()
        .find(|area| area.range.1 - area.range.0 != area.size)
    {
        return Err(format!("{wrong:?}").into());
    }
    let told = told.into_iter().map(|area| (area.range, area.caller));
    let areas = snapshot
        .areas
        .iter()
        .filter(|area| area.state != State::Ready);
    let seen = areas.map(|area| {
        let caller = match area.state {
            State::Waits => Some("unpurged vm_area".to_owned()),
            State::InUse | State::Ready => area.place.clone(),
        };
        ((area.start, area.end), caller.unwrap_or_default())
    });
    same("vmallocinfo", told.collect::<Vec<_>>(), seen.collect())
}

/// All types of a zone together are what is free there.
fn of_types(snapshot: &Snapshot, text: &str) -> Result<(), Failed> {
    let heading = "Page block order:";
    for node in text.split(heading).skip(1) {
        let types = exporters::pagetypeinfo(&format!("{heading}{node}"))?;
        for (place, blocks) in &types.blocks {
            let mut sums = [0; 11];
            for (_, _, counts) in types.free.iter().filter(|(other, ..)| other == place) {
                sums.iter_mut()
                    .zip(counts)
                    .for_each(|(sum, count)| *sum += count);
            }
            let zone = snapshot
                .zones
                .iter()
                .find(|zone| zone.node.to_string() == place.0 && zone.name == place.1);
            let zone = zone.ok_or("no such zone is seen")?;
            same("pagetypeinfo", &sums[..], &zone.blocks[..11])?;
            // Every pageblock that the zone has a part of is of some type.
            let most = (zone.span.1 >> 9) + 1 - (zone.span.0 >> 9);
            let count: u64 = blocks.iter().sum();
            if !(1..=most).contains(&count) {
                return Err(format!("{count} pageblocks of {zone:?}").into());
            }
        }
    }
    Ok(())
}

/// Numbers of zones that the viewer finds, too.
fn of_zones(snapshot: &Snapshot, text: &str) -> Result<(), Failed> {
    let zones = exporters::zoneinfo(text)?;
    let mut seen = snapshot.zones.iter();
    for told in zones.iter().filter(|zone| zone.numbers["present"] > 0) {
        let zone = seen.next().ok_or("zones are not seen")?;
        let wanted = [
            ("present", zone.present),
            ("spanned", zone.span.1 - zone.span.0),
            ("managed", zone.number("managed")),
            ("nr_free_pages", zone.free()),
            ("min", zone.number("min")),
            ("low", zone.number("low")),
            ("high", zone.number("high")),
        ];
        for (name, value) in wanted {
            same(name, told.numbers.get(name).copied(), Some(value))?;
        }
        let place = (zone.node.to_string(), zone.name.clone());
        same("zone", &told.place, &place)?;
    }
    same("zones", seen.next(), None)
}

fn same<T: PartialEq + Debug>(what: &str, told: T, seen: T) -> Result<(), Failed> {
    match told == seen {
        true => Ok(()),
        false => Err(format!("{what}: {told:?}, and {seen:?} is seen").into()),
    }
}
