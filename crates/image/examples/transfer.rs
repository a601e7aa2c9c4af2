//! Times `load` and `pull`: `transfer load ROOT ARCHIVE`, `transfer pull ROOT REFERENCE`,
//! `transfer save ROOT NAME ARCHIVE`.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

use gamut_image::{ImageStore, NoProgress, PullOptions};
use gamut_spec::reference::Reference;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let started = Instant::now();
    match words.as_slice() {
        ["load", root, archive] => {
            let store = ImageStore::open(Path::new(root))?;
            println!(
                "{}",
                store.load(File::open(archive)?, &NoProgress)?.join(" ")
            );
        }
        ["pull", root, name] => {
            let store = ImageStore::open(Path::new(root))?;
            let image = store.pull(
                &Reference::parse(name)?,
                &PullOptions::default(),
                &NoProgress,
            )?;
            println!("{}", image.id);
        }
        ["save", root, name, archive] => {
            let store = ImageStore::open(Path::new(root))?;
            store.save(&[name], File::create(archive)?)?;
        }
        _ => return Err("usage: transfer load|pull|save ROOT NAME [ARCHIVE]".into()),
    }
    println!("{:.3} s", started.elapsed().as_secs_f64());
    Ok(())
}
