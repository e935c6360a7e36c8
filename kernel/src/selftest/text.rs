//! Text in and out: the command line, the shell's parser and line editor, the log ring.

use crate::ktest::Failure;
use crate::logger::Stamp;
use crate::logring::Ring;
use crate::params::{self, Param};
use crate::shell::editor::{Event, LineEditor};
use crate::shell::parse::{NumberError, ParseError, glob, glob_list, parse, size, whole_number};
use crate::{ktest, ktest_assert, ktest_eq};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

const fn param<'a>(name: &'a str, value: Option<&'a str>) -> Param<'a> {
    Param { name, value }
}

/// Feeds bytes to an editor; returns the last event and the echo.
fn typed(editor: &mut LineEditor, keys: &[u8]) -> Result<(Event, String), Failure> {
    let mut echo = String::new();
    let mut last = Event::Pending;
    for &key in keys {
        last = editor.feed(key, &mut echo).map_err(Failure::new)?;
    }
    Ok((last, echo))
}

fn line(text: &str) -> Event {
    Event::Line(String::from(text))
}

fn ring_text<const BYTES: usize>(ring: &Ring<BYTES>) -> String {
    let mut text = String::new();
    let mut position = ring.oldest();
    let mut chunk = [0; 5];
    loop {
        let (length, next) = ring.read(position, &mut chunk);
        if length == 0 {
            return text;
        }
        text.push_str(core::str::from_utf8(chunk.get(..length).unwrap_or_default()).unwrap_or("?"));
        position = next;
    }
}

ktest! {
    fn parameters_are_split_at_blanks_outside_quotes() {
        let parsed: Vec<_> = params::parse("  quiet mem=64M name=\"a b\" \"other=c d\" empty= ").collect();
        ktest_eq!(parsed, [
            param("quiet", None),
            param("mem", Some("64M")),
            param("name", Some("a b")),
            param("other", Some("c d")),
            param("empty", Some("")),
        ]);
        Ok(())
    }

    fn exec_takes_the_rest_of_the_line() {
        let parsed: Vec<_> = params::parse("icount exec=\"echo 'a b'; echo \"c\"; poweroff\"").collect();
        ktest_eq!(parsed, [
            param("icount", None),
            param("exec", Some("echo 'a b'; echo \"c\"; poweroff")),
        ]);
        Ok(())
    }

    fn values_that_a_parameter_does_not_have_are_refused() {
        use params::Refusal::{NeedsValue, NoSuchValue, NotANumber, TakesNoValue, Unknown};
        for (line, refusal) in [
            ("kswapd=off", None),
            ("kswapd=maybe", Some(NoSuchValue)),
            ("kswapd=", Some(NoSuchValue)),
            ("percpu_pagelists", Some(NeedsValue)),
            ("movable_node", None),
            ("movable_node=1", Some(TakesNoValue)),
            ("seed=0x10", None),
            ("seed=x", Some(NotANumber)),
            ("mem=64M", None),
            ("mem", Some(NeedsValue)),
            ("frobnicate", Some(Unknown)),
        ] {
            let found = params::parse(line).next().and_then(|param| param.refusal());
            ktest_assert!(found == refusal, "{line}: {found:?}");
        }
        Ok(())
    }

    fn commands_are_split_at_semicolons_outside_quotes() {
        let commands = parse(" echo a  'b ;c' ;; help; x\"y z\" ").map_err(Failure::new)?;
        let flat: Vec<Vec<&str>> = commands
            .iter()
            .map(|words| words.iter().map(String::as_str).collect())
            .collect();
        ktest_eq!(flat, [alloc::vec!["echo", "a", "b ;c"], alloc::vec!["help"], alloc::vec!["xy z"]]);
        for (line, words) in [
            ("echo 7>F", &["echo", "7", ">", "F"][..]),
            ("echo 7 >> F", &["echo", "7", ">>", "F"]),
            ("echo 7> >F", &["echo", "7", ">", ">", "F"]),
            ("echo 'a>b'", &["echo", "a>b"]),
        ] {
            let parsed = parse(line).map_err(Failure::new)?;
            let words: Vec<String> = words.iter().copied().map(String::from).collect();
            ktest_eq!(parsed, [words]);
        }
        ktest_eq!(parse("echo ''").map(|commands| commands.concat().len()), Ok(2));
        ktest_eq!(parse(" ; "), Ok(Vec::new()));
        Ok(())
    }

    fn an_open_quote_is_an_error() {
        ktest_eq!(parse("echo 'a"), Err(ParseError::OpenQuote('\'')));
        ktest_eq!(parse("echo \"a'"), Err(ParseError::OpenQuote('"')));
        Ok(())
    }

    fn sizes_take_suffixes_and_what_is_none_is_named() {
        for (text, expected) in [
            ("0", Ok(0)), ("16M", Ok(16 << 20)), ("4k", Ok(4096)), ("0x10K", Ok(16 << 10)), ("0x1E", Ok(0x1e)),
            ("2E", Ok(2 << 60)), ("15E", Ok(15 << 60)), ("16E", Err(NumberError::TooLarge)),
            ("18446744073709551615", Ok(u64::MAX)), ("18446744073709551616", Err(NumberError::TooLarge)),
            ("18446744073709551616K", Err(NumberError::TooLarge)), ("0x1ffffffffffffffff", Err(NumberError::TooLarge)),
            ("", Err(NumberError::NotANumber)), ("K", Err(NumberError::NotANumber)), ("0x", Err(NumberError::NotANumber)),
            ("+1", Err(NumberError::NotANumber)), ("1KM", Err(NumberError::NotANumber)), ("-1", Err(NumberError::NotANumber)),
        ] {
            ktest_assert!(size(text) == expected, "`{text}`: {:?}", size(text));
        }
        ktest_eq!(whole_number("16M"), Err(NumberError::NotANumber));
        Ok(())
    }

    fn globs_match_whole_names() {
        for (pattern, name, expected) in [
            ("*", "", true), ("*", "page_o0", true), ("page_*", "page_o0", true),
            ("page_*", "kpage_o0", false), ("*_o?", "page_o4", true), ("*_o?", "page_o10", false),
            ("a*b*c", "axxbyybzc", true), ("a*b*c", "axxbyyb", false), ("", "", true), ("", "a", false),
        ] {
            ktest_assert!(glob(pattern, name) == expected, "`{pattern}` and `{name}`");
        }
        ktest_assert!(glob_list("x,page_*", "page_o0"));
        ktest_assert!(!glob_list("x,y", "page_o0"));
        Ok(())
    }

    fn the_line_editor_edits() {
        let mut editor = LineEditor::new();
        ktest_eq!(typed(&mut editor, b"ab\x7fc\r")?, (line("ac"), String::from("ab\x08 \x08c\n")));
        // The newline of a CR LF pair is no second line.
        ktest_eq!(typed(&mut editor, b"\n")?.0, Event::Pending);
        ktest_eq!(typed(&mut editor, b"wrong\x15right\n")?.0, line("right"));
        ktest_eq!(typed(&mut editor, b"half\x03")?.0, Event::Interrupted);
        ktest_eq!(typed(&mut editor, b"\x7f\x7fwhole\r")?.0, line("whole"));
        Ok(())
    }

    fn arrows_walk_through_the_history() {
        let mut editor = LineEditor::new();
        typed(&mut editor, b"one\rtwo\rtwo\r")?;
        ktest_eq!(typed(&mut editor, b"\x1b[A\r")?.0, line("two"));
        ktest_eq!(typed(&mut editor, b"\x1b[A\x1b[A\r")?.0, line("one"));
        ktest_eq!(typed(&mut editor, b"\x1b[A\x1b[A\x1b[B\r")?.0, line("one"));
        ktest_eq!(typed(&mut editor, b"\x1b[A\x1b[B\x1b[3~x\r")?.0, line("x"));
        Ok(())
    }

    fn the_log_ring_forgets_whole_lines() {
        let mut ring = Ring::<16>::new();
        for text in ["first\n", "second\n"] {
            ring.write_str(text).map_err(Failure::new)?;
        }
        ktest_eq!(ring_text(&ring), "first\nsecond\n");
        ring.write_str("third\n").map_err(Failure::new)?;
        ktest_eq!(ring_text(&ring), "second\nthird\n");
        ring.write_str("a line longer than the ring\n").map_err(Failure::new)?;
        ktest_assert!(ring_text(&ring).ends_with("ring\n"));
        Ok(())
    }

    fn log_times_look_like_linux_times() {
        ktest_eq!(alloc::format!("{}", Stamp { ns: 12_345_678 }), "[    0.012345]");
        ktest_eq!(alloc::format!("{}", Stamp { ns: 1_234_567_000_000_000 }), "[1234567.000000]");
        Ok(())
    }
}
