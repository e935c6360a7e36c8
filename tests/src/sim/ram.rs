//! Physical memory: one memory file, mapped where it is RAM, committed as it is touched.
//!
//! The file is mapped a second time where the library wants its frame table to be
//! ([`MemoryModel::Vmemmap`](mm::platform::MemoryModel)), so that the table really is an alias of
//! the RAM behind it. Holes are not mapped at all: a stray access there ends the test with SIGSEGV.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, OnceLock};

use mm::addr::{PhysAddr, PhysRange, VirtAddr, VirtRange};
use mm::config::PAGE_SIZE;
use mm::platform::{MapFrameTableError, PageAccess};
use rustix::fs::{MemfdFlags, SeekFrom, ftruncate, memfd_create, seek};
use rustix::io::{Errno, pread};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

/// A contiguous range of RAM.
#[derive(Debug)]
struct Bank {
    phys: PhysRange,
    /// Where its bytes start in the file.
    offset: u64,
    first: NonNull<u8>,
    /// Address space that it lies in.
    around: (NonNull<u8>, u64),
}

/// What physical and virtual addresses have in common, as where a kernel maps RAM at one round offset: blocks of the
/// largest order are aligned in both.
const ALIGN: u64 = 4 << 20;

impl Bank {
    fn new(file: &OwnedFd, phys: PhysRange, offset: u64) -> Self {
        let bytes = phys.size() + 2 * ALIGN;
        let around = reserve(bytes);
        let skip = phys
            .start()
            .as_u64()
            .wrapping_sub(around.addr().get() as u64)
            % ALIGN;
        // SAFETY: there is room for twice that before and behind.
        let place = unsafe { around.add(skip as usize) };
        Self {
            phys,
            offset,
            first: map(file, place.as_ptr().cast(), offset, phys.size()),
            around: (around, bytes),
        }
    }
}

/// The RAM of a machine.
#[derive(Debug)]
pub struct Ram {
    file: OwnedFd,
    banks: Vec<Bank>,
    window: Option<Window>,
    /// Where CPUs' copies are mapped, if a test wants them to be.
    percpu: OnceLock<Window>,
    /// Pages that nobody can touch.
    protected: Mutex<BTreeSet<PhysAddr>>,
}

/// The virtual range for the frame table.
#[derive(Debug)]
struct Window {
    first: NonNull<u8>,
    bytes: u64,
    mapped: Mutex<Vec<(u64, u64)>>,
}

// SAFETY: the pointers are to memory that this value owns and that any thread may access; who
// may access which bytes is the library's affair (and what the tests are about).
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// RAM at `ranges` (whole pages; they may touch or overlap), and a window of
    /// `window_bytes` for the frame table, if not 0.
    ///
    /// # Panics
    /// If the host gives no memory.
    #[must_use]
    pub fn new(ranges: &[PhysRange], window_bytes: u64) -> Self {
        let ranges = joined(ranges);
        let total = ranges.iter().map(|range| range.size()).sum();
        let file = memfd_create("simulated RAM", MemfdFlags::CLOEXEC).expect("a memory file");
        ftruncate(&file, total).expect("a memory file of that size");
        let mut offset = 0;
        let bank = |phys: PhysRange| {
            let at = offset;
            offset += phys.size();
            Bank::new(&file, phys, at)
        };
        let banks = ranges.into_iter().map(bank).collect();
        let window = (window_bytes > 0).then(|| Window::reserve(window_bytes).readable());
        Self {
            file,
            banks,
            window,
            percpu: OnceLock::new(),
            protected: Mutex::default(),
        }
    }

    /// The file that the RAM is, as long as this lives; the first range of addresses comes first.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Where the host reaches `range`, or `None` if part of it is no RAM.
    #[must_use]
    pub fn at(&self, range: PhysRange) -> Option<NonNull<u8>> {
        let bank = self.banks.iter().find(|bank| bank.phys.covers(range))?;
        let offset = range.start().offset_from(bank.phys.start())?;
        // SAFETY: the bank covers the range, so the offset is inside its mapping.
        (!range.is_empty()).then(|| unsafe { bank.first.add(offset as usize) })
    }

    /// Whether the range is RAM that nobody has touched yet: it holds zeroes and costs nothing.
    #[must_use]
    pub fn is_untouched(&self, range: PhysRange) -> bool {
        let mut banks = self.banks.iter();
        let Some(bank) = banks.find(|bank| bank.phys.covers(range)) else {
            return false;
        };
        let start = bank.offset + range.start().offset_from(bank.phys.start()).unwrap();
        match seek(&self.file, SeekFrom::Data(start)) {
            Ok(data) => data >= start + range.size(),
            // No data up to the end of the file.
            Err(error) => error == Errno::NXIO,
        }
    }

    /// The physical address behind an address from [`at`](Self::at).
    #[must_use]
    pub fn phys(&self, addr: VirtAddr) -> Option<PhysAddr> {
        self.banks.iter().find_map(|bank| {
            let offset = addr.offset_from(VirtAddr::from_ptr(bank.first.as_ptr()))?;
            let phys = bank.phys.start().checked_add(offset)?;
            bank.phys.contains(phys).then_some(phys)
        })
    }

    /// The ranges that are RAM, lowest first, neighbours joined.
    pub fn ranges(&self) -> impl Iterator<Item = PhysRange> {
        self.banks.iter().map(|bank| bank.phys)
    }

    /// Puts pages out of reach of everybody, or within it again.
    pub(super) fn protect(&self, pages: PhysRange, access: PageAccess) {
        let first = self.at(pages).expect("RAM");
        let (flags, mut protected) = match access {
            PageAccess::None => (MprotectFlags::empty(), self.protected.lock().unwrap()),
            PageAccess::ReadWrite => {
                let both = MprotectFlags::READ | MprotectFlags::WRITE;
                (both, self.protected.lock().unwrap())
            }
        };
        // SAFETY: whole pages of a mapping that is ours; who touches them without asking ends with SIGSEGV.
        unsafe { mprotect(first.as_ptr().cast(), pages.size() as usize, flags) }.unwrap();
        for pfn in pages.whole_frames().iter() {
            match access {
                PageAccess::None => protected.insert(pfn.addr()),
                PageAccess::ReadWrite => protected.remove(&pfn.addr()),
            };
        }
    }

    /// Whether whoever touches an address has a page fault.
    #[must_use]
    pub fn is_protected(&self, address: PhysAddr) -> bool {
        let page = address.align_down(PAGE_SIZE);
        self.protected.lock().unwrap().contains(&page)
    }

    /// Copies bytes that nobody is writing to right now.
    ///
    /// # Panics
    /// If the range is no RAM.
    #[must_use]
    pub fn read(&self, range: PhysRange) -> Vec<u8> {
        let mut banks = self.banks.iter();
        let bank = banks.find(|bank| bank.phys.covers(range)).expect("RAM");
        let offset = range.start().offset_from(bank.phys.start()).unwrap();
        // By the file: pages that are out of reach are read too.
        let mut bytes = vec![0; range.size() as usize];
        let read = pread(&self.file, bytes.as_mut_slice(), bank.offset + offset);
        assert_eq!(read, Ok(bytes.len()));
        bytes
    }

    /// Writes one byte, whoever owns it: what a wild pointer does.
    ///
    /// # Panics
    /// If the address is no RAM.
    pub fn scribble(&self, addr: PhysAddr, byte: u8) {
        let first = self.at(PhysRange::from_size(addr, 1)).expect("RAM");
        // SAFETY: mapped; a byte store through a raw pointer, with no reference alive in tests
        // that damage memory on purpose.
        unsafe { first.write(byte) };
    }

    /// Reads one byte.
    ///
    /// # Panics
    /// If the address is no RAM.
    #[must_use]
    pub fn peek(&self, addr: PhysAddr) -> u8 {
        let first = self.at(PhysRange::from_size(addr, 1)).expect("RAM");
        // SAFETY: as in `scribble`.
        unsafe { first.read() }
    }

    /// Where the frame table's window starts.
    pub(super) fn window_base(&self) -> Option<VirtAddr> {
        let window = self.window.as_ref()?;
        Some(VirtAddr::from_ptr(window.first.as_ptr()))
    }

    /// How much of the frame table's window can be read.
    pub(super) fn window_bytes(&self) -> u64 {
        self.window.as_ref().map_or(0, |window| window.bytes)
    }

    /// Maps `ram` a second time, at `at` inside the window.
    pub(super) fn alias(&self, at: VirtAddr, ram: PhysRange) -> Result<(), MapFrameTableError> {
        let window = self
            .window
            .as_ref()
            .ok_or(MapFrameTableError::Unsupported)?;
        let base = VirtAddr::from_ptr(window.first.as_ptr());
        let start = at
            .offset_from(base)
            .ok_or(MapFrameTableError::OutOfTables)?;
        let end = start + ram.size();
        if end > window.bytes {
            return Err(MapFrameTableError::OutOfTables);
        }
        let bank = self.banks.iter().find(|bank| bank.phys.covers(ram));
        let bank = bank.ok_or(MapFrameTableError::OutOfTables)?;
        let mut mapped = window.mapped.lock().unwrap();
        if mapped.iter().any(|&(s, e)| s < end && start < e) {
            return Err(MapFrameTableError::Occupied(at));
        }
        mapped.push((start, end));
        let offset = bank.offset + ram.start().offset_from(bank.phys.start()).unwrap();
        // SAFETY: `start < window.bytes` (checked above).
        let place = unsafe { window.first.add(start as usize) };
        map(&self.file, place.as_ptr().cast(), offset, ram.size());
        Ok(())
    }
}

/// Bytes of addresses for CPUs' copies.
const PERCPU_BYTES: u64 = 64 << 20;

impl Ram {
    /// Addresses for CPUs' copies that the host reaches: for a kernel's layout. The host follows what the library maps there,
    /// and does not notice what it unmaps; simulated CPUs do.
    #[must_use]
    pub fn percpu_range(&self) -> VirtRange {
        let window = self.percpu.get_or_init(|| Window::reserve(PERCPU_BYTES));
        let first = VirtAddr::from_ptr(window.first.as_ptr());
        VirtRange::from_size(first, window.bytes).unwrap()
    }

    /// Has the host reach RAM at an address of that range, whatever was there before.
    pub(super) fn alias_percpu(&self, at: VirtAddr, ram: PhysRange) {
        let window = self.percpu.get().expect("a range for copies");
        let start = at.offset_from(VirtAddr::from_ptr(window.first.as_ptr()));
        let start = start.filter(|start| start + ram.size() <= window.bytes);
        let bank = self.banks.iter().find(|bank| bank.phys.covers(ram));
        let (start, bank) = start.zip(bank).expect("RAM in the range for copies");
        let offset = bank.offset + ram.start().offset_from(bank.phys.start()).unwrap();
        // SAFETY: inside of the window (checked above).
        let place = unsafe { window.first.add(start as usize) };
        map(&self.file, place.as_ptr().cast(), offset, ram.size());
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        for bank in &self.banks {
            let (first, bytes) = bank.around;
            // SAFETY: reserved by `new` with this size, and nobody outlives the machine's RAM.
            unsafe { munmap(first.as_ptr().cast(), bytes as usize) }.unwrap();
        }
        for window in self.window.iter().chain(self.percpu.get()) {
            // SAFETY: as above; what was mapped into the window goes with it.
            unsafe { munmap(window.first.as_ptr().cast(), window.bytes as usize) }.unwrap();
        }
    }
}

impl Window {
    fn reserve(bytes: u64) -> Self {
        Self {
            first: reserve(bytes),
            bytes,
            mapped: Mutex::new(Vec::new()),
        }
    }

    /// It reads as zeros where nothing is mapped; who writes there ends with SIGSEGV.
    fn readable(self) -> Self {
        let (first, bytes) = (self.first.as_ptr().cast(), self.bytes as usize);
        // SAFETY: all of a mapping that is ours.
        unsafe { mprotect(first, bytes, MprotectFlags::READ) }.unwrap();
        self
    }
}

/// Reserves address space: who touches it ends with SIGSEGV.
fn reserve(bytes: u64) -> NonNull<u8> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping at a place of the kernel's choice overlays nothing.
    let first =
        unsafe { mmap_anonymous(ptr::null_mut(), bytes as usize, ProtFlags::empty(), flags) };
    NonNull::new(first.expect("address space").cast()).unwrap()
}

/// Maps part of the file at a place in address space that was reserved.
fn map(file: &OwnedFd, place: *mut core::ffi::c_void, offset: u64, bytes: u64) -> NonNull<u8> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: inside of a reservation that is ours; a mapping that this place holds already is one that nobody uses any more.
    let first = unsafe { mmap(place, bytes as usize, access, flags, file, offset) };
    NonNull::new(first.expect("memory").cast()).unwrap()
}

/// The union of the ranges, sorted, neighbours joined.
fn joined(ranges: &[PhysRange]) -> Vec<PhysRange> {
    let mut sorted: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).collect();
    sorted.sort_by_key(|range| range.start());
    let mut joined: Vec<PhysRange> = Vec::new();
    for &range in sorted {
        match joined.last_mut() {
            Some(last) if range.start() <= last.end() => {
                let end = last.end().max(range.end());
                *last = PhysRange::new(last.start(), end).unwrap();
            }
            _ => joined.push(range),
        }
    }
    joined
}
