//! `scripts/soak [images|machine] [COUNT [SEED]]`: see [`caisson_tests::soak`] and [`caisson_tests::soak_images`].

use std::fmt::Display;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use caisson_tests::engine::{Engine, Kind};
use caisson_tests::machine::Machine;
use caisson_tests::subject::Subject;
use caisson_tests::{soak, soak_images};

/// What goes on while the engine is killed, and where.
enum Kills {
    Containers,
    ContainersInTheMachine,
    Images,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let (kills, usual) = if arguments.next_if_eq("images").is_some() {
        (Kills::Images, 200)
    } else if arguments.next_if_eq("machine").is_some() {
        (Kills::ContainersInTheMachine, 300)
    } else {
        (Kills::Containers, 2000)
    };
    let mut number = |what: &str| {
        let parse =
            |text: String| text.parse::<u64>().with_context(|| format!("{what} is no number: {text}"));
        arguments.next().map(parse).transpose()
    };
    let count = usize::try_from(number("the count")?.unwrap_or(usual))?;
    let by_clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = number("the seed")?.unwrap_or(by_clock);
    println!("seed {seed}");
    let outcome = match kills {
        Kills::ContainersInTheMachine => {
            let machine = Machine::new()?;
            println!("{}", machine.ok(&["start"])?);
            machine.docker().load_images()?;
            let outcome = timed(|| soak::soak(&machine, count, seed));
            machine.end();
            outcome?
        }
        Kills::Containers => timed(|| soak::soak(&engine()?, count, seed))?,
        Kills::Images => timed(|| soak_images::soak(&engine()?, count, seed))?,
    };
    println!("{outcome}: nothing lost, nothing left");
    Ok(())
}

fn engine() -> Result<Engine> {
    let engine = Engine::start(Kind::Caisson)?;
    engine.docker().load_images()?;
    Ok(engine)
}

/// What it came to, with the seconds that it took.
fn timed<T: Display>(work: impl FnOnce() -> Result<T>) -> Result<String> {
    let begin = Instant::now();
    Ok(format!("{}, in {:.0} s", work()?, begin.elapsed().as_secs_f64()))
}
