//! What `docs/caches.md` shows: a driver's memory. The samples there are parts of this file.

use std::sync::OnceLock;

use mm::buddy::Gfp;
use mm::slab::{CacheError, SlabFlags};
use mm::system::{
    AllocError, CacheBox, DeferError, DmaBuffer, DmaBytes, DmaError, DmaPool, DmaRequest, Home,
    KmallocElements, KmemCache, Memory, Mempool, TypedCache,
};
use mm_tests::sim::{Listed, Machine, SimPlatform, Usual};

type MyPlatform = SimPlatform<Listed<Usual>>;

static MEMORY: OnceLock<&'static Memory<MyPlatform>> = OnceLock::new();

/// In a kernel, `MEMORY` is a `static MEMORY: Memory<MyPlatform>`.
fn my_memory() -> &'static Memory<MyPlatform> {
    MEMORY.get().unwrap()
}

#[derive(Clone, Copy)]
struct Kernel;

// SAFETY: it answers the same memory every time.
unsafe impl Home for Kernel {
    type P = MyPlatform;

    fn memory(&self) -> &Memory<MyPlatform> {
        my_memory()
    }
}

/// A request on its way to a disk.
struct DiskRequest {
    sector: u64,
    tag: u16,
}

struct Disk {
    requests: TypedCache<DiskRequest, Kernel>,
}

impl Disk {
    fn new() -> Result<Self, CacheError> {
        let requests = TypedCache::create(Kernel, "disk_request", SlabFlags::HWCACHE_ALIGN)?;
        Ok(Self { requests })
    }

    fn submit(&self, sector: u64, tag: u16) -> Result<CacheBox<DiskRequest, Kernel>, AllocError> {
        let request = || DiskRequest { sector, tag };
        self.requests.try_new_with(Gfp::KERNEL, request)
    }
}

/// Fills a table of 512 entries with "no entry", once for each table's life.
fn construct(table: &mut [u8]) {
    table.fill(0xff);
}

fn tables() -> Result<KmemCache<Kernel>, CacheError> {
    let layout = (512, 64);
    let flags = SlabFlags::RECLAIM_ACCOUNT;
    KmemCache::create_with_ctor(Kernel, "disk_table", layout, flags, construct)
}

/// Room for 16 descriptors of 16 bytes, where a device of 32 address bits finds it.
fn ring() -> Result<DmaBuffer<Kernel>, DmaError> {
    let request = DmaRequest::new(16 * 16)
        .bits(32)
        .align(256)
        .boundary(64 << 10);
    DmaBuffer::alloc(Kernel, request, Gfp::KERNEL)
}

/// Command blocks of 96 bytes, of which none lies across a page.
fn commands() -> Result<DmaPool<Kernel>, CacheError> {
    let request = DmaRequest::new(96).bits(32).align(32).boundary(4096);
    DmaPool::create(Kernel, "disk_command", request)
}

fn command(pool: &DmaPool<Kernel>) -> Result<DmaBytes<Kernel>, AllocError> {
    pool.alloc(Gfp::KERNEL | Gfp::ZERO)
}

/// Writing pages out frees memory: it must not wait for memory itself.
type Writes = Mempool<KmallocElements<Kernel>, 8>;

fn writes() -> Result<Writes, AllocError> {
    let (home, bytes) = (Kernel, 256);
    Mempool::new(KmallocElements { home, bytes }, Gfp::KERNEL)
}

/// Takes a route out of use that readers may be looking at.
fn forget(route: core::ptr::NonNull<u8>) -> Result<(), DeferError> {
    // SAFETY: it was unlinked: nobody finds it any more, and readers that did are waited for.
    unsafe { my_memory().kfree_deferred(route) }
}

#[test]
fn the_samples_do_what_the_page_says() {
    let machine = Machine::<Listed<Usual>>::with_ram(64 << 20);
    let machine: &'static Machine<_> = Box::leak(Box::new(machine));
    assert!(MEMORY.set(machine).is_ok());
    let disk = Disk::new().unwrap();
    let request = disk.submit(7, 3).unwrap();
    assert_eq!((request.sector, request.tag), (7, 3));
    drop(request);

    let tables = tables().unwrap();
    let table = tables.alloc_bytes(Gfp::KERNEL).unwrap();
    assert!(table.iter().all(|&byte| byte == 0xff));
    drop(table);

    let ring = ring().unwrap();
    assert!(ring.addr().is_aligned(256) && ring.iter().all(|&byte| byte == 0));
    let pool = commands().unwrap();
    let block = command(&pool).unwrap();
    assert_eq!((block.len(), block.addr().as_u64() % 32), (96, 0));
    drop((ring, block));

    let writes = writes().unwrap();
    assert_eq!(writes.alloc(Gfp::NOIO).unwrap().len(), 256);
    assert_eq!(writes.in_reserve(), 8);

    let route = machine.kmalloc(100, Gfp::KERNEL).unwrap();
    forget(route).unwrap();
    machine.grace().barrier().unwrap();
    pool.destroy().unwrap();
    tables.destroy().unwrap();
    disk.requests.destroy().unwrap();
    machine.check();
}
