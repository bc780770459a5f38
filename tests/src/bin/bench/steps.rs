//! Where the time of a container's life goes, step by step: what an engine tells whose log is asked for everything
//! (`CAISSON_LOG=caisson_engine=trace`). A step that contains others is told after them, and includes them.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result};
use caisson_tests::engine::{Engine, Kind, Setting, Told, log};
use caisson_tests::subject::Subject;

use crate::containers::run_by_api;
use crate::measure::{Pair, in_milliseconds, middle};

const ROUNDS: usize = 30;
const WARM_UP: usize = 3;

/// Prints this part's rows, which are ours alone.
pub(crate) fn run(_: &Pair) -> Result<()> {
    let told =
        Told { variables: vec![("CAISSON_LOG".into(), "caisson_engine=trace".into())], ..Told::default() };
    let engine = Engine::start_told(Kind::Caisson, Setting::default(), told)?;
    engine.docker().load_images()?;
    for _ in 0..WARM_UP {
        run_by_api(&engine, "bridge")?;
    }
    let mut file = std::fs::File::open(log(Kind::Caisson)?)?;
    file.seek(SeekFrom::End(0))?;
    for _ in 0..ROUNDS {
        run_by_api(&engine, "bridge")?;
    }
    // The last request's end is in the log before it is answered, and so is all before it.
    let mut told = String::new();
    file.read_to_string(&mut told)?;
    for (step, times) in steps(&told)? {
        println!("  {step:<44} {:>10.3}", middle(times));
    }
    Ok(())
}

/// The steps in the order of their first end, with the times of each in milliseconds.
fn steps(log: &str) -> Result<Vec<(String, Vec<f64>)>> {
    let mut order = Vec::new();
    let mut all: HashMap<String, Vec<f64>> = HashMap::new();
    for (name, time) in log.lines().filter_map(|line| span(line).or_else(|| event(line))) {
        let time = in_milliseconds(time).with_context(|| format!("no time: {time}"))?;
        if !all.contains_key(&name) {
            order.push(name.clone());
        }
        all.entry(name).or_default().push(time);
    }
    Ok(order.into_iter().filter_map(|name| all.remove_entry(&name)).collect())
}

/// The name of a span that has ended, and `busy idle`.
fn span(line: &str) -> Option<(String, &str)> {
    let (spans, times) = line.split_once(": close time.busy=")?;
    let (spans, _module) = spans.rsplit_once(": ")?;
    // The innermost: a step of a request's or a container's, or a request itself.
    let name = match spans.rsplit_once("}:") {
        Some((_, step)) => step.to_owned(),
        None => request(&spans[spans.find("request{")?..])?,
    };
    Some((name, times))
}

/// `POST /containers/{id}/start` of `request{method=POST path=/containers/0123/start}`.
fn request(span: &str) -> Option<String> {
    let (method, path) = span.strip_prefix("request{method=")?.strip_suffix('}')?.split_once(" path=")?;
    let is_id = |part: &&str| part.len() == 64;
    let path: Vec<&str> = path.split('/').map(|part| if is_id(&part) { "{id}" } else { part }).collect();
    Some(format!("{method} {}", path.join("/")))
}

/// A step of the shim's, and its microseconds.
fn event(line: &str) -> Option<(String, &str)> {
    let (name, micros) = line.split_once(" step=\"")?.1.split_once("\" micros=")?;
    Some((format!("  shim: {name}"), micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_from_a_log() {
        let id = "0123456789abcdef".repeat(4);
        let log = format!(
            "T INFO request{{method=GET path=/info}}: caisson_engine::http: answered\n\
             T TRACE request{{method=POST path=/containers/create}}:create: files written: caisson_engine::containers::create: close time.busy=1.50ms time.idle=500µs\n\
             T INFO request{{method=POST path=/containers/create}}: caisson_engine::http::server: close time.busy=1.00s time.idle=0ns\n\
             T TRACE container{{id=0123}}:start: network made: caisson_engine::containers::start: close time.busy=2.00ms time.idle=1.00ms\n\
             T TRACE container{{id=0123}}: caisson_engine::containers::shim: the shim's step=\"clone\" micros=250\n\
             T INFO request{{method=POST path=/containers/{id}/start}}: caisson_engine::http::server: close time.busy=4.00ms time.idle=1.00ms\n\
             T INFO container{{id=0123}}: caisson_engine::containers::task: close time.busy=9.00s time.idle=1.00s\n"
        );
        let expected = [
            ("create: files written", 2.0),
            ("POST /containers/create", 1000.0),
            ("start: network made", 3.0),
            ("  shim: clone", 0.25),
            ("POST /containers/{id}/start", 5.0),
        ];
        let expected = expected.map(|(name, time)| (name.to_owned(), vec![time]));
        assert_eq!(steps(&log).unwrap(), expected);
    }
}
