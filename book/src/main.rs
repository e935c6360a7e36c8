//! Makes the book out of `docs/` (`cargo run -p book`), and checks that every link in it leads somewhere.
//!
//! Nothing is fetched: neither to make the book nor to read it. What lies in `target/book` can be opened from the disk.

mod links;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use mdbook_driver::MDBook;

/// Makes the book; answers how many links were followed.
fn make() -> Result<usize, Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let book = MDBook::load(here)?;
    book.build()?;
    let made = book.build_dir_for("html");
    let links = links::follow(&made)?;
    if !links.broken.is_empty() {
        return Err(format!("links that lead nowhere:\n{}", links.broken.join("\n")).into());
    }
    Ok(links.followed)
}

fn main() -> ExitCode {
    match make() {
        Ok(followed) => {
            println!("target/book/index.html: {followed} links followed, all lead somewhere");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
