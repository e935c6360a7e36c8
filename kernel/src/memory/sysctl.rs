//! `sysctl`: settings of memory by Linux's names.

use super::MEMORY;
use crate::shell::{CommandError, CommandResult};
use crate::{command, kprint, kprintln, ktest, ktest_eq};
use alloc::string::String;
use core::fmt;
use core::num::{IntErrorKind, ParseIntError};
use mm::system::{Tuning, TuningError};
use mm::zone::ZoneKind;

command! { "sysctl", "[-w] [NAME[=VALUE]]...", "show or set vm.*, e.g. `sysctl vm.min_free_kbytes=8192`", sysctl }

/// A setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Setting {
    LowmemReserveRatio,
    MinFreeKbytes,
    PercpuPagelistHighFraction,
    WatermarkBoostFactor,
    WatermarkScaleFactor,
}

/// Why a setting is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
enum SysctlError {
    /// There is no such setting.
    Unknown,
    /// The value is not a number.
    Number(ParseIntError),
    /// So many numbers are needed.
    Count(usize),
    /// The memory core refuses it.
    Refused(TuningError),
}

impl fmt::Display for SysctlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no such setting (`sysctl` lists them)"),
            Self::Number(error) => f.write_str(match error.kind() {
                IntErrorKind::PosOverflow => "too large",
                IntErrorKind::Empty => "a number is needed",
                _ => "not a whole number from 0 upwards",
            }),
            Self::Count(count) => write!(f, "{count} numbers are needed"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl From<ParseIntError> for SysctlError {
    fn from(error: ParseIntError) -> Self {
        Self::Number(error)
    }
}

impl From<TuningError> for SysctlError {
    fn from(error: TuningError) -> Self {
        Self::Refused(error)
    }
}

impl Setting {
    /// All of them, by name.
    const ALL: [(&str, Self); 5] = [
        ("vm.lowmem_reserve_ratio", Self::LowmemReserveRatio),
        ("vm.min_free_kbytes", Self::MinFreeKbytes),
        (
            "vm.percpu_pagelist_high_fraction",
            Self::PercpuPagelistHighFraction,
        ),
        ("vm.watermark_boost_factor", Self::WatermarkBoostFactor),
        ("vm.watermark_scale_factor", Self::WatermarkScaleFactor),
    ];

    fn find(name: &str) -> Result<(&'static str, Self), SysctlError> {
        let mut all = Self::ALL.into_iter();
        all.find(|(known, _)| *known == name)
            .ok_or(SysctlError::Unknown)
    }

    fn set(self, value: &str) -> Result<(), SysctlError> {
        match self {
            Self::LowmemReserveRatio => {
                let mut ratio = [0; ZoneKind::COUNT];
                let count = value.split_ascii_whitespace().count();
                if count != ratio.len() {
                    return Err(SysctlError::Count(ratio.len()));
                }
                for (place, word) in ratio.iter_mut().zip(value.split_ascii_whitespace()) {
                    *place = word.parse()?;
                }
                MEMORY.set_lowmem_reserve_ratio(ratio)?;
            }
            Self::MinFreeKbytes => MEMORY.set_min_free_kbytes(value.trim().parse()?)?,
            Self::PercpuPagelistHighFraction => {
                MEMORY.set_percpu_pagelist_high_fraction(value.trim().parse()?)?;
            }
            Self::WatermarkBoostFactor => {
                MEMORY.set_watermark_boost_factor(value.trim().parse()?)?;
            }
            Self::WatermarkScaleFactor => {
                MEMORY.set_watermark_scale_factor(value.trim().parse()?)?;
            }
        }
        Ok(())
    }

    /// Prints the value as `/proc/sys` has it.
    fn print(self, tuning: &Tuning) {
        match self {
            Self::LowmemReserveRatio => {
                let mut separator = "";
                for ratio in tuning.lowmem_reserve_ratio {
                    kprint!("{separator}{ratio}");
                    separator = "\t";
                }
                kprintln!();
            }
            Self::MinFreeKbytes => kprintln!("{}", tuning.min_free_kbytes),
            Self::PercpuPagelistHighFraction => {
                kprintln!("{}", tuning.percpu_pagelist_high_fraction);
            }
            Self::WatermarkBoostFactor => kprintln!("{}", tuning.watermark_boost_factor),
            Self::WatermarkScaleFactor => kprintln!("{}", tuning.watermark_scale_factor),
        }
    }
}

fn sysctl(arguments: &[String]) -> CommandResult {
    // What `-w` allows is allowed here in any case.
    let words = match arguments {
        [option, rest @ ..] if option == "-w" => rest,
        words => words,
    };
    if words.is_empty() {
        for (name, setting) in Setting::ALL {
            show(name, setting)?;
        }
    }
    for word in words {
        if word.starts_with('-') {
            return Err(CommandError::usage(format_args!("unknown option `{word}`")));
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value)),
            None => (word.as_str(), None),
        };
        let refused = |error| CommandError::failed(format_args!("{name}: {error}"));
        let (name, setting) = Setting::find(name).map_err(refused)?;
        if let Some(value) = value {
            let refused = |error| CommandError::failed(format_args!("{name}={value}: {error}"));
            setting.set(value).map_err(refused)?;
        }
        show(name, setting)?;
    }
    Ok(())
}

fn show(name: &str, setting: Setting) -> CommandResult {
    let tuning = MEMORY
        .tuning()
        .ok_or_else(|| CommandError::failed("memory is not up"))?;
    kprint!("{name} = ");
    setting.print(&tuning);
    Ok(())
}

ktest! {
    fn sysctl_refuses_nonsense_and_sets_what_it_is_told() {
        let name = |name| Setting::find(name).map(|(_, setting)| setting);
        ktest_eq!(name("vm.swappiness"), Err(SysctlError::Unknown));
        let factor = Setting::WatermarkScaleFactor;
        ktest_eq!(name("vm.watermark_scale_factor"), Ok(factor));
        ktest_eq!(factor.set("3001"), Err(SysctlError::Refused(TuningError::ScaleFactor)));
        ktest_eq!(factor.set("0"), Err(SysctlError::Refused(TuningError::ScaleFactor)));
        ktest_eq!(Setting::LowmemReserveRatio.set("256 32"), Err(SysctlError::Count(5)));
        for (text, said) in [
            ("ten", "not a whole number from 0 upwards"),
            ("-1", "not a whole number from 0 upwards"),
            ("99999999999999999999", "too large"),
            ("", "a number is needed"),
        ] {
            let told = factor.set(text).map_err(|error| alloc::format!("{error}"));
            ktest_eq!(told, Err(String::from(said)));
        }
        let words = |words: &[&str]| sysctl(&words.iter().copied().map(String::from).collect::<alloc::vec::Vec<_>>());
        ktest_eq!(words(&["-w", "vm.watermark_scale_factor=10", "vm.min_free_kbytes"]), Ok(()));
        ktest_eq!(words(&["-x", "vm.min_free_kbytes"]).is_err(), true);
        ktest_eq!(words(&["vm.min_free_kbytes="]).is_err(), true);

        let steps = || MEMORY.zones().map(|zone| {
            let marks = zone.watermarks().marks();
            marks.high.wrapping_sub(marks.low)
        }).fold(0, u64::wrapping_add);
        let before = MEMORY.tuning().map(|tuning| tuning.watermark_scale_factor);
        let narrow = steps();
        ktest_eq!(factor.set("3000"), Ok(()));
        let wide = steps();
        ktest_eq!(before.map(|before| MEMORY.set_watermark_scale_factor(before)), Some(Ok(())));
        ktest_eq!(wide > narrow, true);
        ktest_eq!(steps(), narrow);
        Ok(())
    }

    fn the_share_of_page_lists_is_a_setting() {
        let fraction = Setting::PercpuPagelistHighFraction;
        ktest_eq!(fraction.set("7"), Err(SysctlError::Refused(TuningError::HighFraction)));
        let highs = || MEMORY.zones().map(|zone| {
            let limits = zone.list_limits();
            (limits.high_min, limits.high_max)
        }).collect::<alloc::vec::Vec<_>>();
        let before = highs();
        ktest_eq!(fraction.set("8"), Ok(()));
        ktest_eq!(highs().iter().all(|(least, most)| least == most), true);
        ktest_eq!(fraction.set("0"), Ok(()));
        ktest_eq!(highs(), before);
        Ok(())
    }
}
