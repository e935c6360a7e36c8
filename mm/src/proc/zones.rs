//! `/proc/zoneinfo`: sizes and counters of every zone.
//!
//! Zones without memory are printed too, as in Linux, but only down to `protection`. Not
//! maintained yet and therefore missing: per-node statistics, `promo`, counters of
//! reclaim, `vm stats threshold`, `node_unreclaimable`. A machine whose CPUs have no page
//! lists prints no `pagesets`.
#![forbid(unsafe_code)]

use core::fmt::{self, Write};

use super::{ZoneName, free_in_whole_pageblocks, nodes, numa_lines};
use crate::addr::PfnRange;
use crate::buddy::pageset::PageSetStats;
use crate::buddy::pageset::classic::{ListMarks, Temperature};
use crate::buddy::pageset::limits::Limits;
use crate::platform::Platform;
use crate::system::Memory;
use crate::zone::watermark::policy::{ByZone, Marks};
use crate::zone::{Node, NumaStats, Zone};

/// Prints `/proc/zoneinfo`. Nothing before memory is up. Context: any but NMI.
///
/// # Errors
/// Those of `out`.
pub fn zoneinfo<P: Platform>(memory: &Memory<P>, out: &mut dyn Write) -> fmt::Result {
    for zone in nodes(memory).flat_map(Node::zones) {
        ZoneText::of(zone, memory.platform()).write(out, zone.pagesets_with_cold())?;
    }
    Ok(())
}

/// What is printed about a zone.
struct ZoneText {
    name: ZoneName,
    span: PfnRange,
    present: u64,
    managed: u64,
    marks: Marks,
    boost: u64,
    cma: u64,
    cma_free: u64,
    protection: ByZone,
    free: u64,
    free_in_whole_pageblocks: u64,
    numa: NumaStats,
    limits: Limits,
}

impl ZoneText {
    fn of<P: Platform>(zone: &Zone, platform: &P) -> Self {
        let numbers = zone.snapshot(platform);
        let (cma, cma_free) = zone.cma();
        Self {
            cma,
            cma_free,
            name: zone.into(),
            span: zone.span(),
            present: zone.present(),
            managed: zone.managed(),
            marks: zone.watermarks().marks(),
            boost: zone.watermarks().boost(),
            protection: zone.watermarks().protection(),
            free: numbers.free,
            free_in_whole_pageblocks: free_in_whole_pageblocks(&numbers),
            numa: zone.numa_stats(),
            limits: zone.list_limits(),
        }
    }

    fn write(
        &self,
        out: &mut dyn Write,
        sets: impl Iterator<Item = (PageSetStats, Option<PageSetStats>)>,
    ) -> fmt::Result {
        writeln!(out, "{}", self.name)?;
        writeln!(out, "  pages free     {}", self.free)?;
        for (name, frames) in [
            ("boost", self.boost),
            ("min", self.marks.min),
            ("low", self.marks.low),
            ("high", self.marks.high),
            ("spanned", self.span.frames()),
            ("present", self.present),
            ("managed", self.managed),
            ("cma", self.cma),
        ] {
            writeln!(out, "        {name:<8} {frames}")?;
        }
        out.write_str("        protection: ")?;
        for (separator, frames) in ["(", ", ", ", ", ", ", ", "].iter().zip(self.protection) {
            write!(out, "{separator}{frames}")?;
        }
        out.write_str(")\n")?;
        if self.present == 0 {
            return Ok(());
        }
        for (name, frames) in [
            ("nr_free_pages", self.free),
            ("nr_free_pages_blocks", self.free_in_whole_pageblocks),
            ("nr_free_cma", self.cma_free),
        ] {
            writeln!(out, "      {name:<12} {frames}")?;
        }
        for (name, blocks) in numa_lines(&self.numa) {
            writeln!(out, "      {name:<12} {blocks}")?;
        }
        let mut heading = "  pagesets\n";
        for (cpu, (set, cold)) in sets.enumerate() {
            out.write_str(heading)?;
            heading = "";
            match cold {
                None => self.write_set(out, cpu, &set)?,
                Some(cold) => self.write_classic(out, cpu, &set, &cold)?,
            }
        }
        let first = self.span.first().as_u64();
        writeln!(out, "  start_pfn:           {first}")
    }

    /// What a CPU has at hand.
    fn write_set(&self, out: &mut dyn Write, cpu: usize, set: &PageSetStats) -> fmt::Result {
        let Limits {
            batch,
            high_min,
            high_max,
        } = self.limits;
        let (least, most) = (u64::from(high_min), u64::from(high_max));
        writeln!(out, "    cpu: {cpu}")?;
        for (name, frames) in [
            ("count:", set.count),
            // As it is, which is what Linux prints: limits hold for a CPU from its next refill or drain on.
            ("high:", set.high),
            ("batch:", u64::from(batch)),
            ("high_min:", least),
            ("high_max:", most),
        ] {
            writeln!(out, "              {name:<9} {frames}")?;
        }
        Ok(())
    }
}

impl ZoneText {
    /// What a CPU has at hand in hot and cold lists, as Linux 2.6 printed it.
    fn write_classic(
        &self,
        out: &mut dyn Write,
        cpu: usize,
        hot: &PageSetStats,
        cold: &PageSetStats,
    ) -> fmt::Result {
        let sets = [(Temperature::Hot, hot), (Temperature::Cold, cold)];
        for (index, (temperature, set)) in sets.into_iter().enumerate() {
            let marks = ListMarks::of(temperature, self.limits.batch);
            writeln!(out, "    cpu: {cpu} pcp: {index}")?;
            for (name, frames) in [
                ("count:", set.count),
                ("low:", u64::from(marks.low)),
                ("high:", u64::from(marks.high)),
                ("batch:", u64::from(marks.batch)),
            ] {
                writeln!(out, "              {name:<6} {frames}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::NodeId;
    use crate::zone::ZoneKind;

    fn text(zone: &ZoneText, sets: &[PageSetStats]) -> String {
        let mut text = String::new();
        let sets = sets.iter().map(|set| (*set, None));
        zone.write(&mut text, sets).unwrap();
        text
    }

    const MARKS: Marks = Marks {
        min: 31,
        low: 38,
        high: 45,
    };

    fn dma() -> ZoneText {
        ZoneText {
            name: ZoneName {
                node: NodeId(0),
                kind: ZoneKind::Dma,
            },
            span: PfnRange::from_numbers(1, 4096),
            present: 3998,
            managed: 3840,
            marks: MARKS,
            boost: 0,
            cma: 0,
            cma_free: 0,
            protection: [0, 2950, 5876, 5876, 5876],
            free: 3840,
            free_in_whole_pageblocks: 3584,
            numa: NumaStats {
                numa_hit: 7,
                numa_miss: 1,
                numa_foreign: 2,
                interleave_hit: 3,
                local_node: 5,
                other_node: 3,
            },
            limits: Limits {
                batch: 1,
                high_min: 12,
                high_max: 120,
            },
        }
    }

    /// As Linux 6.18 printed it, without the lines that are not maintained.
    #[test]
    fn a_zone_is_what_linux_prints_for_it() {
        let zone = dma();
        let used = PageSetStats {
            count: 5,
            high: 13,
            ..PageSetStats::default()
        };
        let expected = "\
Node 0, zone      DMA
  pages free     3840
        boost    0
        min      31
        low      38
        high     45
        spanned  4095
        present  3998
        managed  3840
        cma      0
        protection: (0, 2950, 5876, 5876, 5876)
      nr_free_pages 3840
      nr_free_pages_blocks 3584
      nr_free_cma  0
      numa_hit     7
      numa_miss    1
      numa_foreign 2
      numa_interleave 3
      numa_local   5
      numa_other   3
  pagesets
    cpu: 0
              count:    5
              high:     13
              batch:    1
              high_min: 12
              high_max: 120
    cpu: 1
              count:    0
              high:     0
              batch:    1
              high_min: 12
              high_max: 120
  start_pfn:           1
";
        assert_eq!(text(&zone, &[used, PageSetStats::default()]), expected);
    }

    #[test]
    fn a_zone_without_memory_ends_after_its_sizes() {
        let zone = ZoneText {
            name: ZoneName {
                node: NodeId(12),
                kind: ZoneKind::Movable,
            },
            span: PfnRange::EMPTY,
            present: 0,
            managed: 0,
            marks: Marks::default(),
            boost: 0,
            cma: 0,
            cma_free: 0,
            protection: [0; 5],
            free: 0,
            free_in_whole_pageblocks: 0,
            numa: NumaStats::default(),
            limits: Limits::default(),
        };
        let expected = "\
Node 12, zone  Movable
  pages free     0
        boost    0
        min      0
        low      0
        high     0
        spanned  0
        present  0
        managed  0
        cma      0
        protection: (0, 0, 0, 0, 0)
";
        assert_eq!(text(&zone, &[]), expected);
    }
}
