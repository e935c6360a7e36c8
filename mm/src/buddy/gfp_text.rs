//! How a request's flags are printed.
#![forbid(unsafe_code)]

use core::fmt;

use super::Gfp;

/// The groups that Linux prints by name, larger ones before those that they contain.
const GROUPS: [(&str, Gfp); 11] = [
    ("GFP_TRANSHUGE", Gfp::TRANSHUGE),
    ("GFP_TRANSHUGE_LIGHT", Gfp::TRANSHUGE_LIGHT),
    ("GFP_HIGHUSER_MOVABLE", Gfp::HIGHUSER_MOVABLE),
    ("GFP_HIGHUSER", Gfp::HIGHUSER),
    ("GFP_USER", Gfp::USER),
    ("GFP_KERNEL_ACCOUNT", Gfp::KERNEL_ACCOUNT),
    ("GFP_KERNEL", Gfp::KERNEL),
    ("GFP_NOFS", Gfp::NOFS),
    ("GFP_ATOMIC", Gfp::ATOMIC),
    ("GFP_NOIO", Gfp::NOIO),
    ("GFP_NOWAIT", Gfp::NOWAIT),
];

/// As Linux's `%pGg`: groups first, then single flags, joined by `|`.
impl fmt::Display for Gfp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = *self;
        let mut separator = "";
        for (name, group) in GROUPS {
            if rest.contains(group) {
                write!(f, "{separator}{name}")?;
                rest.remove(group);
                separator = "|";
            }
        }
        for (name, flag) in rest.iter_names() {
            let zone = matches!(flag, Self::DMA | Self::DMA32);
            let prefix = if zone { "GFP_" } else { "__GFP_" };
            write!(f, "{separator}{prefix}{name}")?;
            separator = "|";
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_printed_as_linux_does_and_read_back() {
        for (gfp, text) in [
            (Gfp::KERNEL, "GFP_KERNEL"),
            (Gfp::ATOMIC | Gfp::ZERO, "GFP_ATOMIC|__GFP_ZERO"),
            (Gfp::KERNEL | Gfp::DMA, "GFP_KERNEL|GFP_DMA"),
            (
                Gfp::HIGHUSER_MOVABLE | Gfp::COMP,
                "GFP_HIGHUSER_MOVABLE|__GFP_COMP",
            ),
            (Gfp::TRANSHUGE, "GFP_TRANSHUGE"),
            (Gfp::KSWAPD_RECLAIM, "__GFP_KSWAPD_RECLAIM"),
        ] {
            assert_eq!(gfp.to_string(), text);
            assert_eq!(text.parse(), Ok(gfp));
        }
        assert_eq!(Gfp::empty().to_string(), "none");
    }
}
