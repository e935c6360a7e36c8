//! R59: every function of [`Memory`] says in which contexts it may be called, and is called in all of
//! them: by a task, by one that is pinned, in an interrupt, in an NMI. What an NMI may call takes no
//! lock, since the code that was interrupted may hold it; nothing sleeps but for tasks; and who says
//! that it may sleep where it may not is reported.

mod areas;
mod tables;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::ptr::NonNull;

use mm::addr::{Order, Pfn, PfnRange, PhysAddr, PhysRange, VirtAddr, VirtRange};
use mm::buddy::Gfp;
use mm::buddy::relief::{Freed, OomNotifier, OutOfMemory, Relief, ShrinkControl, Shrinker};
use mm::numa::{Mode, NodeMask, NodeState, Policy};
use mm::platform::{CpuId, NodeId, Platform};
use mm::report::AccessKind;
use mm::sync::Pin;
use mm::sync::shootdown::Lazy;
use mm::system::{DmaRequest, Memory, NoFailSlab, NoKfence, PageLists, PageRun, SharedBlock};
use mm::zone::watermark::policy::RESERVE_RATIO;
use mm_tests::oracles;
use mm_tests::sim::{Checked, Listed, Machine, SimPlatform};
use mm_tests::window::Window;

/// Locks are counted in the debug profile.
type World = Machine<Listed<Checked>>;
type Home = Memory<SimPlatform<Listed<Checked>>>;

const MIB: u64 = 1 << 20;
/// A page that is reserved at boot.
const RESERVED: u64 = 8 * MIB;
/// A page that is free.
const FREE: u64 = 40 * MIB;

/// Where a call comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
enum From {
    Task,
    Pinned,
    Irq,
    Nmi,
}

/// What a function's documentation says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum May {
    /// "any"
    Any,
    /// "any but NMI"
    NotNmi,
    /// "as the flags say"
    AsFlagsSay,
    /// "task"
    Task,
    /// "boot": the other functions' machine has done that already.
    Boot,
}

impl May {
    fn read(text: &str) -> Self {
        let has = |word| text.contains(word);
        match () {
            () if has("as [`") && has("alloc_block`]") || has("as the flags say") => {
                Self::AsFlagsSay
            }
            () if has("any but NMI") || has("not NMI") => Self::NotNmi,
            () if text.starts_with("any") => Self::Any,
            () if text.starts_with("task") => Self::Task,
            () if text.starts_with("boot") => Self::Boot,
            () => panic!("`Context: {text}` is none that this test knows"),
        }
    }

    /// The contexts that are allowed.
    fn contexts(self) -> &'static [From] {
        match self {
            Self::Any => &[From::Task, From::Pinned, From::Irq, From::Nmi],
            Self::NotNmi | Self::AsFlagsSay => &[From::Task, From::Pinned, From::Irq],
            Self::Task => &[From::Task],
            Self::Boot => &[],
        }
    }
}

/// A public function of the system.
struct Function {
    name: String,
    /// The text behind its `Context:`.
    context: Option<String>,
    /// Whether it is one of `Memory`.
    is_memory: bool,
}

/// All of them, found in the sources.
fn functions() -> Vec<Function> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mm/src");
    let mut files = vec![
        sources.join("system.rs"),
        sources.join("inspect/publish.rs"),
    ];
    for folder in ["system", "adapters", "proc"] {
        let entries = fs::read_dir(sources.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        files.extend(paths.filter(|path| path.is_file()));
    }
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let (mut doc, mut is_memory) = (String::new(), false);
        for line in text.lines() {
            if line.starts_with("impl") {
                is_memory = line.contains("> Memory<P> {");
            }
            let line = line.trim();
            if let Some(text) = line.strip_prefix("///") {
                doc = doc + text.trim() + " ";
            } else if let Some(name) = public_function(line) {
                let context = doc.split_once("Context: ").map(|(_, text)| {
                    let end = text.split(". ").next().unwrap();
                    end.trim_end_matches('.').to_owned()
                });
                found.push(Function {
                    name: name.to_owned(),
                    context,
                    is_memory,
                });
                doc.clear();
            } else if !line.starts_with("#[") {
                doc.clear();
            }
        }
    }
    found
}

#[test]
fn every_public_function_says_in_which_contexts_it_may_be_called() {
    let functions = functions();
    assert!(functions.len() > 100);
    let silent = functions
        .iter()
        .filter(|function| function.context.is_none());
    let silent: Vec<_> = silent.map(|function| &function.name).collect();
    assert!(silent.is_empty(), "no `Context:` line: {silent:?}");
}

fn public_function(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub ")?;
    let rest = rest
        .trim_start_matches("const ")
        .trim_start_matches("unsafe ");
    let name = rest.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

/// What a call needs: taken by a task beforehand.
struct Call {
    world: &'static World,
    /// What a request may say where the call comes from.
    gfp: Gfp,
    /// A page with a reference to it.
    shared: SharedBlock<&'static Home>,
    run: Cell<Option<PageRun<&'static Home>>>,
}

impl Call {
    fn free(&self, pfn: Pfn, order: Order) {
        // SAFETY: each call gives back what it took as a number.
        unsafe { self.world.free_pages(pfn, order) }.unwrap();
    }

    fn free_at(&self, address: NonNull<u8>) {
        // SAFETY: as above.
        unsafe { self.world.free_pages_at(address, Order::ZERO) }.unwrap();
    }

    fn kfree(&self, object: NonNull<u8>) {
        // SAFETY: as above.
        unsafe { self.world.kfree(object) }.unwrap();
    }

    fn page(&self) -> Pfn {
        self.world.alloc_page(self.gfp).unwrap()
    }
}

struct Idle;

impl Relief for Idle {
    fn count_objects(&self, _: &ShrinkControl) -> u64 {
        0
    }

    fn scan_objects(&self, _: &ShrinkControl, _: u64) -> Option<Freed> {
        None
    }
}

impl OutOfMemory for Idle {
    fn out_of_memory(&self, _: Order) -> u64 {
        0
    }
}

fn shrinker() -> &'static Shrinker {
    Box::leak(Box::new(Shrinker::new("idle", &Idle)))
}

fn notifier() -> &'static OomNotifier {
    Box::leak(Box::new(OomNotifier::new(&Idle)))
}

/// A frame in the middle of the zone that the tests' pages do not come from.
fn somewhere() -> PfnRange {
    PfnRange::block(Pfn::new(FREE >> 12), Order::ZERO)
}

fn somewhere_mapped() -> VirtRange {
    VirtRange::from_size(VirtAddr::new(0xffff_c900_0000_0000), 4096).unwrap()
}

type Action = fn(&Call);

/// A call of each function that a machine which is up can be asked for.
const CALLS: &[(&str, Action)] = &[
    ("alloc_block", |call| {
        drop(call.world.alloc_block(call.gfp, Order::ZERO).unwrap())
    }),
    ("alloc_block_policy", |call| {
        let mut policy = Policy::DEFAULT;
        drop(
            call.world
                .alloc_block_policy(&mut policy, call.gfp, Order::ZERO)
                .unwrap(),
        );
    }),
    ("alloc_pages_policy", |call| {
        let mut policy = Policy::DEFAULT;
        let pages = call
            .world
            .alloc_pages_policy(&mut policy, call.gfp, Order::ZERO);
        call.free(pages.unwrap(), Order::ZERO);
    }),
    ("alloc_pages_nolock", |call| {
        let pages = call.world.alloc_pages_nolock(call.gfp, Order::ZERO);
        // SAFETY: it was taken just now.
        unsafe { call.world.free_pages_nolock(pages.unwrap(), Order::ZERO) }.unwrap();
    }),
    ("free_pages_nolock", |call| {
        let pages = call.world.alloc_pages_nolock(call.gfp, Order::ZERO);
        // SAFETY: it was taken just now.
        unsafe { call.world.free_pages_nolock(pages.unwrap(), Order::ZERO) }.unwrap();
    }),
    ("free_pages_cold", |call| {
        // SAFETY: it was taken just now.
        unsafe { call.world.free_pages_cold(call.page(), Order::ZERO) }.unwrap();
    }),
    ("page_lists", |call| {
        assert_eq!(call.world.page_lists(), PageLists::Tuned);
    }),
    ("presence", |call| assert!(call.world.presence().is_some())),
    ("grace", |call| call.world.grace().set_patience(1_000)),
    ("node_states", |call| {
        assert!(
            call.world
                .node_states(NodeState::Online)
                .contains(NodeId(0))
        );
    }),
    ("policy", |call| {
        let nodes = NodeMask::one(NodeId(0)).unwrap();
        assert!(call.world.policy(Mode::Bind, &nodes).is_ok());
    }),
    ("interleave_weight", |call| {
        assert_eq!(call.world.interleave_weight(NodeId(0)), Some(1));
    }),
    ("set_interleave_weight", |call| {
        assert_eq!(call.world.set_interleave_weight(NodeId(0), 1), Ok(()));
    }),
    ("alloc_block_node", |call| {
        drop(
            call.world
                .alloc_block_node(NodeId(0), call.gfp, Order::ZERO)
                .unwrap(),
        );
    }),
    ("alloc_contig_range", |call| {
        drop(
            call.world
                .alloc_contig_range(somewhere(), call.gfp)
                .unwrap(),
        );
    }),
    ("alloc_page", |call| call.free(call.page(), Order::ZERO)),
    ("alloc_pages", |call| {
        let order = Order::new(4).unwrap();
        call.free(call.world.alloc_pages(call.gfp, order).unwrap(), order);
    }),
    ("alloc_pages_bulk", |call| {
        let mut pages = [None; 70];
        assert_eq!(call.world.alloc_pages_bulk(call.gfp, &mut pages), Ok(70));
        pages
            .iter()
            .flatten()
            .for_each(|pfn| call.free(*pfn, Order::ZERO));
    }),
    ("alloc_pages_exact", |call| {
        drop(call.world.alloc_pages_exact(call.gfp, 12_345).unwrap());
    }),
    ("alloc_pages_node", |call| {
        let pfn = call
            .world
            .alloc_pages_node(NodeId(0), call.gfp, Order::ZERO);
        call.free(pfn.unwrap(), Order::ZERO);
    }),
    ("balance_node", |call| {
        assert!(call.world.balance_node(NodeId(0)).is_balanced)
    }),
    ("cma_alloc", |call| {
        drop(call.world.cma_alloc(5, Order::ZERO).unwrap())
    }),
    ("cma_release", |call| {
        call.world.cma_release(call.run.take().unwrap())
    }),
    ("cma_stats", |call| {
        assert!(call.world.cma_stats().frames.frames() > 0)
    }),
    ("distance", |call| {
        assert!(call.world.distance(NodeId(0), NodeId(0)).is_some())
    }),
    ("dma_alloc", |call| {
        let request = DmaRequest::new(5000).bits(30);
        drop(call.world.dma_alloc(request, call.gfp).unwrap());
    }),
    ("drain_all_pages", |call| {
        assert!(call.world.drain_all_pages())
    }),
    ("drain_local_pages", |call| call.world.drain_local_pages()),
    ("drain_wanted", |call| call.world.drain_wanted()),
    ("frames", |call| assert!(call.world.frames().is_some())),
    ("free_early", |call| {
        let range = PhysRange::from_size(PhysAddr::new(RESERVED), 4096);
        // SAFETY: reserved on this machine for this call alone, which is made once.
        let ram = unsafe { call.world.hardware().early_ram(range) };
        call.world.free_early(NodeId(0), ram).unwrap();
    }),
    ("free_reserved_area", |call| {
        let range = PhysRange::from_size(PhysAddr::new(RESERVED + 4096), 4096);
        // SAFETY: reserved on this machine for this call alone, which is made once.
        unsafe { call.world.free_reserved_area(range) }.unwrap();
    }),
    ("free_frames", |call| assert!(call.world.free_frames() > 0)),
    ("free_pages", |call| call.free(call.page(), Order::ZERO)),
    ("free_pages_at", |call| {
        call.free_at(call.world.get_free_pages(call.gfp, Order::ZERO).unwrap());
    }),
    ("free_pages_bulk", |call| {
        let mut pages = [Some(call.page()), None];
        // SAFETY: taken just now.
        unsafe { call.world.free_pages_bulk(&mut pages) }.unwrap();
    }),
    ("free_pages_traced", |call| {
        // SAFETY: taken just now.
        unsafe {
            call.world
                .free_pages_traced(call.page(), Order::ZERO, &mut ())
        }
        .unwrap();
    }),
    ("get_dma_pages", |call| {
        call.free_at(call.world.get_dma_pages(call.gfp, Order::ZERO).unwrap());
    }),
    ("get_free_pages", |call| {
        call.free_at(call.world.get_free_pages(call.gfp, Order::ZERO).unwrap());
    }),
    ("get_page", |call| {
        let pfn = call.world.get_page(call.shared.pfn()).unwrap();
        // SAFETY: the reference just taken, not the last one.
        unsafe { call.world.put_page(pfn) }.unwrap();
    }),
    ("get_zeroed_page", |call| {
        call.free_at(call.world.get_zeroed_page(call.gfp).unwrap())
    }),
    ("injected_failures", |call| {
        assert_eq!(call.world.injected_failures(), 0)
    }),
    ("is_latent", |call| {
        assert!(!call.world.is_latent(Pfn::new(u64::MAX)))
    }),
    ("is_up", |call| assert!(call.world.is_up())),
    ("keeps_origins", |call| assert!(!call.world.keeps_origins())),
    ("last_free", |call| {
        assert!(call.world.last_free(Pfn::new(u64::MAX)).is_none())
    }),
    ("leave_cpu", |call| {
        // SAFETY: it returns at once.
        unsafe { call.world.leave_cpu() };
        call.world.return_cpu();
    }),
    ("managed_frames", |call| {
        assert!(call.world.managed_frames() > 0)
    }),
    ("for_each_cache", |call| {
        let mut caches = 0;
        call.world.for_each_cache(|_, _| caches += 1);
        assert!(caches > 0);
    }),
    ("for_each_object_owner", |call| {
        call.world
            .for_each_object_owner(|_, owner| assert!(owner.objects > 0));
    }),
    ("injected_object_failures", |call| {
        assert_eq!(call.world.injected_object_failures(), 0)
    }),
    ("set_failslab", |call| {
        assert_eq!(call.world.set_failslab(None), Err(NoFailSlab));
    }),
    ("hides_free_pages", |call| {
        assert!(!call.world.hides_free_pages());
    }),
    ("free_page_fault", |call| {
        let (address, kind) = (VirtAddr::new(0x1000), AccessKind::Read);
        assert!(!call.world.free_page_fault(address, kind));
    }),
    ("kfence_page_fault", |call| {
        let (address, kind) = (VirtAddr::new(0x1000), AccessKind::Read);
        assert!(!call.world.kfence_page_fault(address, kind));
    }),
    ("kfence_stats", |call| {
        assert_eq!(call.world.kfence_stats(), Err(NoKfence));
    }),
    ("set_kfence_interval", |call| {
        assert_eq!(call.world.set_kfence_interval(1), Err(NoKfence));
    }),
    ("kcalloc", |call| {
        call.kfree(call.world.kcalloc(4, 8, call.gfp).unwrap());
    }),
    ("kfree", |call| {
        call.kfree(call.world.kmalloc(100, call.gfp).unwrap());
    }),
    ("kfree_bulk", |call| {
        let mut objects = [Some(call.world.kmalloc(100, call.gfp).unwrap()), None];
        // SAFETY: allocated above.
        unsafe { call.world.kfree_bulk(&mut objects) }.unwrap();
    }),
    ("kfree_deferred", |call| {
        let object = call.world.kmalloc(100, call.gfp).unwrap();
        // SAFETY: allocated above.
        unsafe { call.world.kfree_deferred(object) }.unwrap();
    }),
    ("kfree_sensitive", |call| {
        let object = call.world.kmalloc(100, call.gfp).unwrap();
        // SAFETY: allocated above.
        unsafe { call.world.kfree_sensitive(object) }.unwrap();
    }),
    ("kmalloc", |call| {
        call.kfree(call.world.kmalloc(30_000, call.gfp).unwrap());
    }),
    ("kmalloc_node", |call| {
        let object = call.world.kmalloc_node(10, call.gfp, NodeId(0));
        call.kfree(object.unwrap());
    }),
    ("kmalloc_traced", |call| {
        let object = call.world.kmalloc_traced(10, call.gfp, &mut ());
        call.kfree(object.unwrap());
    }),
    ("krealloc", |call| {
        let object = call.world.kmalloc(10, call.gfp).unwrap();
        // SAFETY: allocated above.
        let moved = unsafe { call.world.krealloc(object, (10, 1000), call.gfp) };
        call.kfree(moved.unwrap());
    }),
    ("ksize", |call| {
        let on_stack = 0_u64;
        let object = NonNull::from(&on_stack).cast();
        assert_eq!(call.world.ksize(object), None);
    }),
    ("kzalloc", |call| {
        call.kfree(call.world.kzalloc(10, call.gfp).unwrap());
    }),
    ("shrink_caches", |call| {
        call.world.shrink_caches();
    }),
    ("alloc_percpu", |call| {
        let first = call.world.alloc_percpu((40, 8), call.gfp).unwrap();
        // SAFETY: allocated just now.
        unsafe { call.world.free_percpu(first, 40) }.unwrap();
    }),
    ("free_percpu", |call| {
        let first = call.world.alloc_percpu((8, 8), call.gfp).unwrap();
        // SAFETY: allocated just now.
        unsafe { call.world.free_percpu(first, 8) }.unwrap();
    }),
    ("percpu_offset", |call| {
        assert_eq!(call.world.percpu_offset(CpuId(0)), Some(0))
    }),
    ("percpu_stats", |call| {
        assert!(call.world.percpu_stats().cpus > 0)
    }),
    ("shrink_percpu", |call| {
        call.world.shrink_percpu();
    }),
    ("validate_percpu", |call| {
        assert_eq!(call.world.validate_percpu(), Ok(()))
    }),
    ("validate_caches", |call| {
        assert_eq!(call.world.validate_caches(), Ok(()))
    }),
    ("anchor", |call| {
        assert!(call.world.anchor(CpuId(0)).is_some())
    }),
    ("new", |_| assert!(!Memory::new(Window::none()).is_up())),
    ("node_of", |call| {
        assert_eq!(call.world.node_of(CpuId(0)), NodeId(0))
    }),
    ("nodes", |call| assert_eq!(call.world.nodes().len(), 1)),
    ("options", |call| assert!(call.world.options().is_some())),
    ("origin", |call| {
        assert!(call.world.origin(call.shared.pfn()).is_none())
    }),
    ("page", |call| {
        assert!(call.world.page(call.shared.pfn()).is_some())
    }),
    ("platform", |call| {
        assert_eq!(call.world.platform().cpus(), 1)
    }),
    ("populate", |call| {
        call.world.populate(PfnRange::from_numbers(0, u64::MAX))
    }),
    ("populate_ahead", |call| {
        assert_eq!(call.world.populate_ahead(NodeId(0)), 0)
    }),
    ("put_page", |call| {
        let shared = call
            .world
            .alloc_block(call.gfp, Order::ZERO)
            .unwrap()
            .share()
            .unwrap();
        let pfn = call.world.get_page(shared.pfn()).unwrap();
        drop(shared);
        // SAFETY: the reference taken above, the last one.
        unsafe { call.world.put_page(pfn) }.unwrap();
    }),
    ("quarantined_frames", |call| {
        assert_eq!(call.world.quarantined_frames(), 0)
    }),
    ("reclaim_stats", |call| {
        assert_eq!(call.world.reclaim_stats().pgsteal_direct, 0)
    }),
    ("recompute_watermarks", |call| {
        call.world.recompute_watermarks().unwrap()
    }),
    ("register_oom_notifier", |call| {
        call.world.register_oom_notifier(notifier()).unwrap()
    }),
    ("register_shrinker", |call| {
        call.world.register_shrinker(shrinker()).unwrap()
    }),
    ("return_cpu", |call| call.world.return_cpu()),
    ("set_lowmem_reserve_ratio", |call| {
        call.world.set_lowmem_reserve_ratio(RESERVE_RATIO).unwrap();
    }),
    ("set_min_free_kbytes", |call| {
        call.world.set_min_free_kbytes(512).unwrap()
    }),
    ("set_percpu_pagelist_high_fraction", |call| {
        call.world.set_percpu_pagelist_high_fraction(0).unwrap();
    }),
    ("set_watermark_boost_factor", |call| {
        call.world.set_watermark_boost_factor(0).unwrap()
    }),
    ("set_watermark_scale_factor", |call| {
        call.world.set_watermark_scale_factor(10).unwrap()
    }),
    ("summary", |call| assert!(call.world.summary().managed > 0)),
    ("flush_tlb", |call| call.world.flush_tlb(somewhere_mapped())),
    ("flush_tlb_tables", |call| {
        call.world.flush_tlb_tables(somewhere_mapped())
    }),
    ("flush_tlb_on", |call| {
        call.world.flush_tlb_on(somewhere_mapped(), |_| true)
    }),
    ("flush_tlb_all", |call| call.world.flush_tlb_all()),
    ("tlb_catch_up", |call| call.world.tlb_catch_up()),
    ("tlb_lazy_enter", |call| {
        // SAFETY: it leaves at once.
        unsafe { call.world.tlb_lazy_enter(Lazy::Idle) };
        assert_eq!(call.world.tlb_lazy_leave(), Some(Lazy::Idle));
    }),
    ("tlb_lazy_leave", |call| {
        assert_eq!(call.world.tlb_lazy_leave(), None)
    }),
    ("tlb_generation", |call| {
        assert!(call.world.tlb_generation() > 0)
    }),
    ("tlb_of", |call| {
        assert_eq!(call.world.tlb_of(CpuId(0)).unwrap().behind, 0)
    }),
    ("tlb_stats", |call| {
        assert!(call.world.tlb_stats().local_flush_one > 0)
    }),
    ("tuning", |call| assert!(call.world.tuning().is_some())),
    ("unregister_oom_notifier", |call| {
        let notifier = notifier();
        call.world.register_oom_notifier(notifier).unwrap();
        assert!(call.world.unregister_oom_notifier(notifier));
    }),
    ("unregister_shrinker", |call| {
        let shrinker = shrinker();
        call.world.register_shrinker(shrinker).unwrap();
        assert!(call.world.unregister_shrinker(shrinker));
    }),
    ("validate", |call| assert!(call.world.validate().is_ok())),
    ("zone_of", |call| {
        assert!(call.world.zone_of(call.shared.pfn()).is_some())
    }),
    ("zones", |call| {
        assert!(call.world.zones().any(|zone| zone.is_managed()))
    }),
];

fn calls() -> impl Iterator<Item = &'static (&'static str, Action)> {
    CALLS.iter().chain(areas::CALLS).chain(tables::CALLS)
}

/// Makes a call as if from a context, and looks at what it did.
fn make(name: &str, action: Action, from: From, call: &Call) {
    let hardware = call.world.hardware();
    let locks = hardware.taken_locks();
    match from {
        From::Task => action(call),
        From::Pinned => hardware.in_atomic(|| {
            let pin = Pin::new(hardware);
            action(call);
            drop(pin);
        }),
        From::Irq | From::Nmi => hardware.in_atomic(|| {
            let irq = hardware.irq_save();
            action(call);
            hardware.irq_restore(irq);
        }),
    }
    if from == From::Nmi {
        let taken = hardware.taken_locks() - locks;
        // Those may try: they do without where somebody has the lock.
        let tries = u64::from(name.ends_with("_nolock")) * 4;
        assert!(taken <= tries, "{name} takes locks, and an NMI may call it");
    }
    let sleeps = hardware.take_sleeps();
    assert!(sleeps.is_empty(), "{name} from {from:?}: {sleeps:?}");
    oracles::check_quiet(call.world);
}

#[test]
fn every_function_of_memory_is_called_in_every_context_that_it_allows() {
    let builder = World::new().ram(0, 64 * MIB).reserve(RESERVED, 2 * 4096);
    let builder = builder.options(|options| options.cma_bytes = 8 * MIB);
    let world: &'static World = Box::leak(Box::new(builder.boot()));
    areas::init(world).unwrap();
    let documented: BTreeMap<_, _> = functions()
        .into_iter()
        .filter(|function| function.is_memory)
        .map(|function| (function.name, function.context.unwrap()))
        .collect();
    let mut made = [0; 4];
    for (name, text) in &documented {
        let may = May::read(text);
        if may == May::Boot {
            continue;
        }
        let known = calls().find(|(known, _)| known == name);
        let (_, action) = known.unwrap_or_else(|| panic!("no call of `{name}`: add one"));
        for &from in may.contexts() {
            let call = Call {
                world,
                gfp: if from == From::Task {
                    Gfp::KERNEL
                } else {
                    Gfp::ATOMIC
                },
                shared: world
                    .alloc_block(Gfp::KERNEL, Order::ZERO)
                    .unwrap()
                    .share()
                    .unwrap(),
                run: Cell::new(Some(world.cma_alloc(1, Order::ZERO).unwrap())),
            };
            make(name, *action, from, &call);
            made[from as usize] += 1;
        }
    }
    for (name, _) in calls() {
        assert!(
            documented.contains_key(*name),
            "`{name}` is not there any more"
        );
    }
    println!("calls from task, pinned, irq, NMI: {made:?}");
    assert!(made[0] > 50 && made.is_sorted_by(|one, other| one >= other));
    world.check();
}

/// The test above can fail: what takes a lock is found, and so is a request that would sleep.
#[test]
fn a_call_that_an_nmi_must_not_make_and_one_that_sleeps_are_found() {
    let world = World::new().ram(0, 32 * MIB).boot();
    let hardware = world.hardware();
    let locks = hardware.taken_locks();
    assert!(world.tuning().is_some());
    assert_eq!(hardware.taken_locks() - locks, 1);
    let gfp = Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN;
    let take = || world.alloc_block(gfp, Order::ZERO);
    let taken: Vec<_> = std::iter::from_fn(|| take().ok()).collect();
    assert!(hardware.in_atomic(take).is_err());
    assert_eq!(hardware.take_sleeps().len(), 1, "a seeded violation");
    drop(taken);
    world.finish();
}
