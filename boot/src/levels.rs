//! Four levels of page tables or five.
//!
//! Five are switched on where the CPU has them and the command line does not say `la57=off`. The entry code starts with
//! four, since the command line is read by the parsers; [`Image::use_five_levels`](crate::image::Image) leaves
//! long mode and comes back with five, before the kernel's first table is made.

/// The word of the command line that keeps four levels.
const OFF: &str = "la57=off";

/// How many levels page tables have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Levels {
    /// 48 bits of an address are translated.
    Four,
    /// 57 bits are.
    Five,
}

impl Levels {
    /// Chooses for a CPU that has five levels, or has not.
    pub(crate) fn choose(command_line: Option<&str>, has_five: bool) -> Self {
        if has_five && !is_refused(command_line.unwrap_or_default()) {
            Self::Five
        } else {
            Self::Four
        }
    }

    /// The lowest bit of an address that chooses an entry of the root.
    pub(crate) const fn root_shift(self) -> u32 {
        match self {
            Self::Four => 39,
            Self::Five => 48,
        }
    }
}

/// Whether a word of the line, as blanks outside quotes part them, is [`OFF`]; quotes do not count.
fn is_refused(line: &str) -> bool {
    let mut quoted = false;
    let mut words = line.split(|letter: char| {
        quoted ^= letter == '"';
        letter.is_ascii_whitespace() && !quoted
    });
    words.any(|word| word.chars().filter(|letter| *letter != '"').eq(OFF.chars()))
}

#[cfg(test)]
mod tests {
    use super::Levels;

    fn chosen(line: &str) -> Levels {
        Levels::choose(Some(line), true)
    }

    #[test]
    fn five_levels_are_used_where_the_cpu_has_them() {
        assert_eq!(Levels::choose(None, true), Levels::Five);
        assert_eq!(Levels::choose(None, false), Levels::Four);
        assert_eq!(Levels::choose(Some("la57=on"), false), Levels::Four);
        assert_eq!(chosen(""), Levels::Five);
        assert_eq!(chosen("mem=64M la57=on"), Levels::Five);
    }

    #[test]
    fn a_word_of_the_command_line_refuses_them() {
        for line in [
            "la57=off",
            "  la57=off\t",
            "mem=64M la57=off loglevel=info",
            "a=\"b c\" la57=off exec=\"echo one; echo two\"",
            "la57=\"off\"",
            "\"la57=off\"",
            "exec=\"echo one\" la57=off",
        ] {
            assert_eq!(chosen(line), Levels::Four, "{line}");
        }
    }

    #[test]
    fn parts_of_words_and_words_of_quoted_values_do_not() {
        for line in [
            "xla57=off",
            "la57=offx",
            "la57=off,x",
            "la57 = off",
            "la57=",
            "LA57=off",
            "no la57 =off",
            "exec=\"echo la57=off\"",
            "exec=\"la57=off\"",
            "exec=\"echo la57=off; echo la57=off",
        ] {
            assert_eq!(chosen(line), Levels::Five, "{line}");
        }
    }
}
