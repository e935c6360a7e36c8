//! Writing the sheet.
#![forbid(unsafe_code)]

use core::panic::Location;
use core::sync::atomic::{Ordering, compiler_fence};

use super::format::{Entry, EntryKind, Header, SampleLocation};
use super::record::Record;
use super::ring::{EventCell, EventRing};
use crate::addr::{Order, PhysAddr, Place, Rows, VirtAddr, to_count, to_index};
use crate::buddy::{Gfp, Request, Told};
use crate::config::{PAGE_SIZE, SECTION_FRAMES};
use crate::frame::LastFree;
use crate::mem::Exclusive;
use crate::platform::{CpuId, Platform, Profile};
use crate::slab::Cache;
use crate::sync::{SpinLock, rank};
use crate::system::{AllocError, Core, Memory};
use crate::zone::Zone;

/// Pages of a sheet, at most.
const PAGES: usize = 32;
/// Entries in a page.
const ENTRIES: u64 = PAGE_SIZE.saturating_sub(to_count(Header::BYTES)) / to_count(Entry::BYTES);

/// What is written down for who looks at memory from outside; nothing until it is asked for.
#[derive(Debug)]
pub(crate) struct Sheet(SpinLock<Pages>);

#[derive(Debug)]
struct Pages {
    /// Those in use come first.
    pages: [Option<Exclusive>; PAGES],
    /// What the last of them starts with.
    last: Header,
}

/// There is no room for an entry.
struct Full;

/// Whether something is written down for the first time.
#[derive(Clone, Copy)]
enum News {
    Certainly,
    /// It may stand there already.
    Perhaps,
}

impl Sheet {
    pub(crate) const fn new() -> Self {
        Self(SpinLock::new(
            rank::INSPECT,
            Pages {
                pages: [const { None }; PAGES],
                last: Header {
                    record_bytes: 0,
                    own: PhysAddr::ZERO,
                    next: PhysAddr::ZERO,
                    entries: 0,
                    direct_map: 0,
                    root: PhysAddr::ZERO,
                    levels: 0,
                    limit: 0,
                    section_frames: 0,
                    profile: 0,
                    sample: SampleLocation {
                        at: 0,
                        file: 0,
                        file_len: 0,
                        line: 0,
                        column: 0,
                    },
                },
            },
        ))
    }
}

impl Pages {
    fn count(&self) -> usize {
        self.pages.iter().flatten().count()
    }

    /// Writes to a page, what changes last last.
    fn write<P: Platform>(&mut self, platform: &P, page: usize, at: usize, bytes: &[u8]) {
        let page = self.pages.get_mut(page).and_then(Option::as_mut);
        let place = page.and_then(|page| page.bytes_mut(platform));
        let place = place.and_then(|place| place.get_mut(at..)?.get_mut(..bytes.len()));
        if let Some(place) = place {
            place.copy_from_slice(bytes);
        }
        // Who reads goes by what is in memory, in this order.
        compiler_fence(Ordering::SeqCst);
    }

    /// Adds a page behind the others.
    ///
    /// # Errors
    /// The page, if there are as many as there can be.
    fn attach<P: Platform>(
        &mut self,
        platform: &P,
        mut page: Exclusive,
        first: impl FnOnce(PhysAddr, VirtAddr) -> Header,
    ) -> Result<(), Exclusive> {
        let (count, own) = (self.count(), page.frames().addrs().start());
        let Some(slot) = self.pages.get_mut(count) else {
            return Err(page);
        };
        page.zero(platform);
        let at = page
            .as_ptr(platform)
            .map_or_else(VirtAddr::default, |pointer| {
                VirtAddr::from_ptr(pointer.as_ptr())
            });
        *slot = Some(page);
        let before = self.last;
        self.last = match count {
            0 => first(own, at),
            _ => Header {
                own,
                ..Header::default()
            },
        };
        let header = self.last.to_bytes();
        self.write(platform, count, 0, &header);
        if let Some(place) = count.checked_sub(1) {
            let before = Header {
                next: own,
                ..before
            };
            self.write(platform, place, 0, &before.to_bytes());
        }
        Ok(())
    }

    /// Where an entry about the same thing stands.
    fn find<P: Platform>(&mut self, platform: &P, wanted: &Entry) -> Option<(usize, usize)> {
        for (number, page) in self.pages.iter().flatten().enumerate() {
            let bytes = page.bytes(platform)?.get(Header::BYTES..)?;
            for (place, entry) in bytes.chunks_exact(Entry::BYTES).enumerate() {
                if Entry::read(entry).is_some_and(|entry| entry.is_about_same(wanted)) {
                    let at = place.saturating_mul(Entry::BYTES);
                    return Some((number, Header::BYTES.saturating_add(at)));
                }
            }
        }
        None
    }

    /// Writes an entry, in the place of one about the same thing if there is one.
    fn put<P: Platform>(&mut self, platform: &P, entry: &Entry, news: News) -> Result<(), Full> {
        let before = match news {
            News::Certainly => None,
            News::Perhaps => self.find(platform, entry),
        };
        if let Some((page, at)) = before {
            self.write(platform, page, at, &entry.to_bytes());
            return Ok(());
        }
        let page = self.count().checked_sub(1).ok_or(Full)?;
        let entries = self.last.entries;
        if entries >= ENTRIES {
            return Err(Full);
        }
        let at = to_index(entries).saturating_mul(Entry::BYTES);
        self.write(
            platform,
            page,
            Header::BYTES.saturating_add(at),
            &entry.to_bytes(),
        );
        self.last.entries = entries.saturating_add(1);
        let header = self.last.to_bytes();
        self.write(platform, page, 0, &header);
        Ok(())
    }
}

impl Entry {
    /// Whether one stands in the place of the other.
    fn is_about_same(&self, other: &Self) -> bool {
        let key = |entry: &Self| (entry.kind, entry.index, entry.owner);
        let same_name = match self.kind {
            // They change their names, and stay where they are.
            EntryKind::Cache => true,
            EntryKind::Areas => self.at == other.at,
            _ => self.name == other.name,
        };
        key(self) == key(other) && same_name
    }

    fn of_place(kind: EntryKind, place: Place) -> Self {
        Self {
            at: place.at.as_u64(),
            width: narrow(place.bytes),
            ..Self::new(kind, place.name)
        }
    }

    /// Rows with up to eight fields.
    fn of_rows(kind: EntryKind, name: &str, rows: Rows) -> Self {
        let [low, high] = rows.words();
        Self {
            at: rows.at.as_u64(),
            width: narrow(rows.stride),
            numbers: [rows.count, low, high],
            ..Self::new(kind, name)
        }
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl<P: Platform> Memory<P> {
    /// Writes down where everything is, for viewers on the host ([`inspect`](crate::inspect)). From then on new caches and
    /// records of areas are added, and nothing else is done for viewers. It takes a few pages. To be called once, when the
    /// library knows the kernel's address space ([`Self::adopt_kernel_space`]) if it is to know it; a second time it only
    /// looks for what is new. Answers where the first page is. Context: task.
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn publish(&self) -> Result<PhysAddr, AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        let news = match self.is_published(core) {
            true => News::Perhaps,
            false => News::Certainly,
        };
        let gfp = (Gfp::KERNEL, news);
        self.put_entry(core, gfp, &sections(core))?;
        for (number, zone) in (0..).zip(self.zones()) {
            if zone.is_populated() {
                self.publish_zone(core, gfp, number, zone)?;
            }
        }
        for place in [
            Place::of("table_frames", &core.table_frames),
            Place::of("quarantined", &core.quarantined),
        ] {
            self.put_entry(core, gfp, &Entry::of_place(EntryKind::OfMachine, place))?;
        }
        for (index, range) in (0..).zip(core.latent_ranges()) {
            let entry = Entry {
                index,
                numbers: [
                    range.first().as_u64(),
                    range.end().as_u64(),
                    Core::latent_metadata::<P>(),
                ],
                ..Entry::new(EntryKind::Latent, "latent")
            };
            self.put_entry(core, gfp, &entry)?;
        }
        if let Some(rows) = core.origins.rows() {
            let entry = Entry::of_rows(EntryKind::Origins, "origins", rows);
            self.put_entry(core, gfp, &entry)?;
        }
        if let Some(rows) = core.last_frees.rows() {
            let mut entry = Entry::of_rows(EntryKind::LastFrees, "last frees", rows);
            entry.numbers[2] = LastFree::WORDS;
            self.put_entry(core, gfp, &entry)?;
        }
        for cache in core.caches.iter() {
            self.put_entry(core, gfp, &self.cache_entry(cache))?;
        }
        self.publish_areas(core, gfp)?;
        let sheet = core.sheet.0.lock(self.platform());
        let first = sheet.pages.iter().flatten().next();
        first.map_or(Err(AllocError::OutOfMemory), |page| {
            Ok(page.frames().addrs().start())
        })
    }

    fn publish_zone(
        &self,
        core: &Core,
        gfp: (Gfp, News),
        number: u32,
        zone: &Zone,
    ) -> Result<(), AllocError> {
        let (span, home) = (zone.span(), zone.id());
        let entry = Entry {
            index: number,
            owner: home.node.0.into(),
            width: home.zone.into(),
            numbers: [span.first().as_u64(), span.end().as_u64(), zone.present()],
            ..Entry::new(EntryKind::Zone, zone.kind().name())
        };
        self.put_entry(core, gfp, &entry)?;
        let types = zone.types_at(self.platform());
        let entry = Entry {
            owner: number,
            at: types.sections.at.as_u64(),
            width: narrow(types.stride),
            numbers: [types.sections.count, types.first_section, types.offset],
            ..Entry::new(EntryKind::Pageblocks, "types")
        };
        self.put_entry(core, gfp, &entry)?;
        for place in zone.places() {
            let entry = Entry {
                owner: number,
                ..Entry::of_place(EntryKind::OfZone, place)
            };
            self.put_entry(core, gfp, &entry)?;
        }
        if let Some(rows) = zone.pagesets_at() {
            let entry = Entry {
                owner: number,
                ..Entry::of_rows(EntryKind::OfCpu, "pagesets", rows)
            };
            self.put_entry(core, gfp, &entry)?;
        }
        Ok(())
    }

    /// Shows viewers what happens on a CPU, where the platform records [events](Platform::event); so many units of time are a
    /// second, or 0 if nobody knows. After [`Self::publish`]. Context: task.
    ///
    /// # Errors
    /// [`AllocError`].
    #[track_caller]
    pub fn publish_events<const N: usize>(
        &self,
        cpu: CpuId,
        ring: &'static EventRing<N>,
        per_second: u64,
    ) -> Result<(), AllocError> {
        let core = self.core().ok_or(AllocError::NotUp)?;
        let (head, cells) = ring.places();
        let entry = Entry {
            index: cpu.0,
            at: head.as_u64(),
            width: narrow(to_count(size_of::<EventCell>())),
            numbers: [cells.as_u64(), ring.capacity(), per_second],
            ..Entry::new(EntryKind::Events, "events")
        };
        self.put_entry(core, (Gfp::KERNEL, News::Perhaps), &entry)
    }

    /// Writes down where records of areas are.
    fn publish_areas(&self, core: &Core, gfp: (Gfp, News)) -> Result<(), AllocError> {
        for (space, _) in self.spaces() {
            for rows in space.records() {
                let entry = Entry {
                    ..Entry::of_rows(EntryKind::Areas, "areas", rows)
                };
                self.put_entry(core, gfp, &entry)?;
            }
        }
        Ok(())
    }

    /// Takes note of new records of areas, if viewers may look. That there is no room for it is no reason not to have them.
    pub(crate) fn note_areas(&self, core: &Core, gfp: Gfp) {
        if self.is_published(core) {
            let _ = self.publish_areas(core, (gfp | Gfp::NOWARN, News::Perhaps));
        }
    }

    /// The same for a cache that came or went.
    pub(crate) fn note_cache(&self, core: &Core, cache: &Cache) {
        if self.is_published(core) {
            let entry = self.cache_entry(cache);
            let gfp = Gfp::KERNEL | Gfp::NOWARN;
            let _ = self.put_entry(core, (gfp, News::Perhaps), &entry);
        }
    }

    fn is_published(&self, core: &Core) -> bool {
        core.sheet.0.lock(self.platform()).count() > 0
    }

    fn cache_entry(&self, cache: &Cache) -> Entry {
        let shape = cache.shape().filter(|_| cache.has_users());
        let name = cache.name(self.platform());
        let name = if shape.is_some() { name.as_str() } else { "" };
        let numbers = shape.map(|shape| {
            [
                to_count(shape.size()),
                u64::from(shape.objects()),
                shape.order().as_u8().into(),
            ]
        });
        Entry {
            index: cache.id().into(),
            numbers: numbers.unwrap_or_default(),
            ..Entry::new(EntryKind::Cache, name)
        }
    }

    #[track_caller]
    fn put_entry(
        &self,
        core: &Core,
        (gfp, news): (Gfp, News),
        entry: &Entry,
    ) -> Result<(), AllocError> {
        loop {
            if core
                .sheet
                .0
                .lock(self.platform())
                .put(self.platform(), entry, news)
                .is_ok()
            {
                return Ok(());
            }
            // No lock is held while memory is asked for. If somebody else was faster, there is a page more.
            let request = Request::new(gfp, Order::ZERO)?;
            let page = self.alloc_request(&request, &mut Told(self.platform()))?;
            let mut sheet = core.sheet.0.lock(self.platform());
            let attached = sheet.attach(self.platform(), page, |own, at| Header {
                profile: profile(P::PROFILE),
                ..header(core, own, at)
            });
            drop(sheet);
            if let Err(page) = attached {
                self.release(page);
                return Err(AllocError::OutOfMemory);
            }
        }
    }
}

/// The number of a profile in a [`Header`].
const fn profile(profile: Profile) -> u64 {
    match profile {
        Profile::Plain => 0,
        Profile::Hardened => 1,
        Profile::Debug => 2,
    }
}

fn sections(core: &Core) -> Entry {
    let (first, count) = core.frames.pointers();
    Entry {
        at: first.as_u64(),
        width: narrow(to_count(size_of::<usize>())),
        numbers: [count, 0, 0],
        ..Entry::new(EntryKind::Sections, "sections")
    }
}

#[track_caller]
fn header(core: &Core, own: PhysAddr, at: VirtAddr) -> Header {
    let place = Location::caller();
    let space = core.kernel_space.get();
    Header {
        record_bytes: narrow(to_count(Record::BYTES)),
        own,
        next: PhysAddr::ZERO,
        entries: 0,
        direct_map: at.as_u64().wrapping_sub(own.as_u64()),
        root: space.map_or(PhysAddr::ZERO, |space| space.tables.root().addr()),
        levels: space.map_or(0, |space| space.tables.levels().into()),
        limit: core.frames.limit().as_u64(),
        section_frames: SECTION_FRAMES,
        profile: 0,
        sample: SampleLocation {
            at: VirtAddr::from_ptr(place).as_u64(),
            file: VirtAddr::from_ptr(place.file().as_ptr()).as_u64(),
            file_len: to_count(place.file().len()),
            line: place.line(),
            column: place.column(),
        },
    }
}
