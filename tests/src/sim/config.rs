//! Which profile and memory model a machine is built with.

use mm::platform::{MemoryModel, Profile};
use mm::system::{PageLists, Populate};

/// A profile and a memory model, as a type: the library is instantiated for each.
pub trait SimConfig: Send + Sync + 'static {
    /// How much checking is compiled in.
    const PROFILE: Profile;
    /// How frame records are found.
    const MODEL: MemoryModel;
    /// Whether the platform keeps what the library has for each CPU: those that map their records do, so
    /// that both ways are gone.
    const HAS_ANCHORS: bool = matches!(Self::MODEL, MemoryModel::Vmemmap);
    /// Whether CPUs remember for good that nothing was mapped where the frame table's array is.
    const IS_WINDOW_OLD: bool = false;
    /// Whether CPUs have page lists unless a test says otherwise. Most tests look at the free areas
    /// themselves.
    const LISTS: PageLists = PageLists::Off;
    /// When memory is populated unless a test says otherwise. Most tests look at all of it.
    const POPULATE: Populate = Populate::AtBoot;
    /// Whether it is recorded what happens.
    const EVENTS: bool = false;
}

/// The same with a record of what happens.
#[derive(Debug)]
pub struct Recorded<C>(std::marker::PhantomData<fn() -> C>);

impl<C: SimConfig> SimConfig for Recorded<C> {
    const PROFILE: Profile = C::PROFILE;
    const MODEL: MemoryModel = C::MODEL;
    const LISTS: PageLists = C::LISTS;
    const POPULATE: Populate = C::POPULATE;
    const EVENTS: bool = true;
}

/// The same with memory populated on demand.
#[derive(Debug)]
pub struct Latent<C>(std::marker::PhantomData<fn() -> C>);

impl<C: SimConfig> SimConfig for Latent<C> {
    const PROFILE: Profile = C::PROFILE;
    const MODEL: MemoryModel = C::MODEL;
    const LISTS: PageLists = C::LISTS;
    const POPULATE: Populate = Populate::OnDemand;
}

/// The same with page lists.
#[derive(Debug)]
pub struct Listed<C>(std::marker::PhantomData<fn() -> C>);

impl<C: SimConfig> SimConfig for Listed<C> {
    const PROFILE: Profile = C::PROFILE;
    const MODEL: MemoryModel = C::MODEL;
    const IS_WINDOW_OLD: bool = C::IS_WINDOW_OLD;
    const LISTS: PageLists = PageLists::Tuned;
    const POPULATE: Populate = C::POPULATE;
}

/// The same with hot and cold lists that have fixed marks.
#[derive(Debug)]
pub struct Classic<C>(std::marker::PhantomData<fn() -> C>);

impl<C: SimConfig> SimConfig for Classic<C> {
    const PROFILE: Profile = C::PROFILE;
    const MODEL: MemoryModel = C::MODEL;
    const LISTS: PageLists = PageLists::Classic;
    const POPULATE: Populate = C::POPULATE;
}

/// A profile as a type.
pub trait SimProfile: Send + Sync + 'static {
    /// The profile.
    const PROFILE: Profile;
}

/// A memory model as a type.
pub trait SimModel: Send + Sync + 'static {
    /// The model.
    const MODEL: MemoryModel;
    /// As [`SimConfig::IS_WINDOW_OLD`].
    const IS_WINDOW_OLD: bool = false;
}

impl<P: SimProfile, M: SimModel> SimConfig for (P, M) {
    const PROFILE: Profile = P::PROFILE;
    const MODEL: MemoryModel = M::MODEL;
    const IS_WINDOW_OLD: bool = M::IS_WINDOW_OLD;
}

/// [`Profile::Plain`].
#[derive(Debug)]
pub struct Plain;
/// [`Profile::Hardened`].
#[derive(Debug)]
pub struct Hardened;
/// [`Profile::Debug`].
#[derive(Debug)]
pub struct Debug;

impl SimProfile for Plain {
    const PROFILE: Profile = Profile::Plain;
}
impl SimProfile for Hardened {
    const PROFILE: Profile = Profile::Hardened;
}
impl SimProfile for Debug {
    const PROFILE: Profile = Profile::Debug;
}

/// [`MemoryModel::Sparse`].
#[derive(Debug)]
pub struct Sparse;
/// [`MemoryModel::Vmemmap`].
#[derive(Debug)]
pub struct Vmemmap;
/// [`MemoryModel::Flat`].
#[derive(Debug)]
pub struct Flat;

/// The same, where CPUs remember for good what they read before records were mapped.
#[derive(Debug)]
pub struct OldVmemmap;

impl SimModel for OldVmemmap {
    const MODEL: MemoryModel = MemoryModel::Vmemmap;
    const IS_WINDOW_OLD: bool = true;
}
impl SimModel for Sparse {
    const MODEL: MemoryModel = MemoryModel::Sparse;
}
impl SimModel for Vmemmap {
    const MODEL: MemoryModel = MemoryModel::Vmemmap;
}
impl SimModel for Flat {
    const MODEL: MemoryModel = MemoryModel::Flat;
}

/// As `for_every_config`, for four that differ in everything: where a test is about what lies above them.
#[macro_export]
macro_rules! for_four_configs {
    ($($body:ident),* $(,)?) => {$(
        mod $body {
            use $crate::sim::{Debug, Hardened, Latent, Listed, Plain, Sparse, Vmemmap};

            #[test]
            fn plain_sparse() { super::$body::<(Plain, Sparse)>(); }
            #[test]
            fn hardened_vmemmap() { super::$body::<(Hardened, Vmemmap)>(); }
            #[test]
            fn listed_debug_vmemmap() { super::$body::<Listed<(Debug, Vmemmap)>>(); }
            #[test]
            fn latent_listed_hardened_vmemmap() {
                super::$body::<Latent<Listed<(Hardened, Vmemmap)>>>();
            }
        }
    )*};
}

/// Makes one test of each generic function for every profile and every memory model.
///
/// `for_every_config! { name, other }` gives `name::plain_sparse`, `name::debug_flat` and so on,
/// each calling `super::name::<(Plain, Sparse)>()`.
#[macro_export]
macro_rules! for_every_config {
    ($($body:ident),* $(,)?) => {$(
        mod $body {
            use $crate::sim::{
                Classic, Debug, Flat, Hardened, Latent, Listed, Plain, Sparse, Vmemmap,
            };

            #[test]
            fn plain_sparse() { super::$body::<(Plain, Sparse)>(); }
            #[test]
            fn plain_vmemmap() { super::$body::<(Plain, Vmemmap)>(); }
            #[test]
            fn plain_flat() { super::$body::<(Plain, Flat)>(); }
            #[test]
            fn hardened_sparse() { super::$body::<(Hardened, Sparse)>(); }
            #[test]
            fn hardened_vmemmap() { super::$body::<(Hardened, Vmemmap)>(); }
            #[test]
            fn hardened_flat() { super::$body::<(Hardened, Flat)>(); }
            #[test]
            fn debug_sparse() { super::$body::<(Debug, Sparse)>(); }
            #[test]
            fn debug_vmemmap() { super::$body::<(Debug, Vmemmap)>(); }
            #[test]
            fn debug_flat() { super::$body::<(Debug, Flat)>(); }
            #[test]
            fn listed_plain_sparse() { super::$body::<Listed<(Plain, Sparse)>>(); }
            #[test]
            fn listed_debug_vmemmap() { super::$body::<Listed<(Debug, Vmemmap)>>(); }
            #[test]
            fn classic_debug_sparse() { super::$body::<Classic<(Debug, Sparse)>>(); }
            #[test]
            fn latent_plain_vmemmap() { super::$body::<Latent<(Plain, Vmemmap)>>(); }
            #[test]
            fn latent_debug_sparse() { super::$body::<Latent<(Debug, Sparse)>>(); }
            #[test]
            fn latent_listed_hardened_vmemmap() {
                super::$body::<Latent<Listed<(Hardened, Vmemmap)>>>();
            }
        }
    )*};
}
