//! `scripts/soak [images] [COUNT [SEED]]`: see [`caisson_tests::soak`] and [`caisson_tests::soak_images`].

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use caisson_tests::engine::{Engine, Kind};
use caisson_tests::soak::soak;
use caisson_tests::soak_images;
use caisson_tests::subject::Subject;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let of_images = arguments.next_if_eq("images").is_some();
    let mut number = |what: &str| {
        let parse =
            |text: String| text.parse::<u64>().with_context(|| format!("{what} is no number: {text}"));
        arguments.next().map(parse).transpose()
    };
    let count = number("the count")?.unwrap_or(if of_images { 200 } else { 2000 });
    let by_clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = number("the seed")?.unwrap_or(by_clock);
    println!("seed {seed}");
    let engine = Engine::start(Kind::Caisson)?;
    engine.docker().load_images()?;
    let begin = Instant::now();
    let outcome = match of_images {
        true => format!("kills: {}", soak_images::soak(&engine, usize::try_from(count)?, seed)?),
        false => {
            let outcome = soak(&engine, usize::try_from(count)?, seed)?;
            format!("{} containers and {} kills", outcome.containers, outcome.kills)
        }
    };
    println!("{outcome}, in {:.0} s: nothing lost, nothing left", begin.elapsed().as_secs_f64());
    Ok(())
}
