//! What the kernel prints of its memory is read by a parser that others wrote for Linux, the crate `procfs-core`.

use libtest_mimic::Failed;
use procfs_core::{FromBufRead, Iomem, Meminfo, VmStat};

use crate::guest;

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
