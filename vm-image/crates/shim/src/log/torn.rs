//! The last entry of a log whose writer was killed in the middle of it, or whose machine lost its power.
//!
//! It is completed before others follow: readers go from entry to entry, and would take those for a part of it. It is not cut off, for who
//! follows the log may have read it by now. What becomes of it is an entry that says nothing, or no more than was written of its text (and
//! blanks, in a `local` log).

mod message;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use caisson_shim::LogFormat;

/// Longer than any entry: a length that says more is not one.
const LONGEST: usize = 1 << 20;

/// Completes the last entry of a file that is written at its end.
pub(super) fn complete(file: &mut File, format: LogFormat) -> io::Result<()> {
    let length = file.metadata()?.len();
    let missing = match format {
        LogFormat::Json => missing_of_line(file, length)?,
        LogFormat::Local => missing_of_message(file, length)?,
    };
    file.write_all(&missing)
}

fn missing_of_line(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let Some(last) = length.checked_sub(1) else { return Ok(Vec::new()) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(if byte == *b"\n" { Vec::new() } else { b"\n".to_vec() })
}

fn missing_of_message(file: &File, length: u64) -> io::Result<Vec<u8>> {
    if ends_whole(file, length)? {
        return Ok(Vec::new());
    }
    let begin = end_of_whole(file, length)?;
    let written = usize::try_from(length - begin).unwrap_or(usize::MAX);
    let mut head = [0; 4];
    file.read_exact_at(&mut head[..written.min(4)], begin)?;
    let body = u32::from_be_bytes(head) as usize;
    if written == 0 || body > LONGEST {
        return Ok(Vec::new());
    }
    if written < 4 {
        return Ok([&head[written..], &message::rest(&[], body), &head].concat());
    }
    let mut begun = vec![0; (written - 4).min(body)];
    file.read_exact_at(&mut begun, begin + 4)?;
    let rest = message::rest(&begun, body - begun.len());
    let of_tail = written - 4 - begun.len();
    Ok([&rest[..], &head[of_tail.min(4)..]].concat())
}

/// Whether the last message is whole, as far as its end tells.
fn ends_whole(file: &File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(4) else { return Ok(length == 0) };
    let body = number(file, last)?;
    let Some(begin) = last.checked_sub(u64::from(body) + 4) else { return Ok(false) };
    Ok(number(file, begin)? == body)
}

/// Where the last message ends that is whole, or so far from whole that it has no length.
fn end_of_whole(file: &File, length: u64) -> io::Result<u64> {
    let mut at = 0;
    while at + 4 <= length {
        let end = at + u64::from(number(file, at)?) + 8;
        if end > length {
            break;
        }
        at = end;
    }
    Ok(at)
}

fn number(file: &File, at: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use caisson_shim::LogFile;

    use super::super::{Lines, Log};
    use super::*;

    fn what(path: &std::path::Path, format: LogFormat) -> LogFile {
        LogFile {
            path: path.to_owned(),
            format,
            max_bytes: None,
            max_files: 1,
            compress: false,
            buffer: None,
            attributes: Default::default(),
        }
    }

    fn append(what: &LogFile, lines: &[u8]) {
        Lines::new("stdout").write(lines, &mut Log::of(what).unwrap());
    }

    fn entries(format: LogFormat, mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let length = match format {
                LogFormat::Json => bytes.iter().position(|byte| *byte == b'\n').expect("it ends") + 1,
                LogFormat::Local => {
                    u32::from_be_bytes(*bytes.first_chunk().expect("it is whole")) as usize + 8
                }
            };
            let (entry, rest) = bytes.split_at(length);
            all.push(entry);
            bytes = rest;
        }
        all
    }

    #[test]
    fn who_comes_after_a_torn_entry_is_found() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        for format in [LogFormat::Json, LogFormat::Local] {
            let what = what(&path, format);
            fs::write(&path, "").unwrap();
            append(&what, b"first\nsecond\n");
            let whole = fs::read(&path).unwrap();
            let first = entries(format, &whole)[0].len();
            for end in first..whole.len() {
                fs::write(&path, &whole[..end]).unwrap();
                append(&what, b"third\n");
                let found = fs::read(&path).unwrap();
                assert!(found.starts_with(&whole[..end]), "what was read of it stays");
                let found = entries(format, &found);
                assert_eq!(found.len(), if end == first { 2 } else { 3 }, "{format:?} to {end}");
                let last = String::from_utf8_lossy(found[found.len() - 1]);
                assert!(last.contains("third") && !last.contains("second"), "{last:?}");
            }
        }
    }

    #[test]
    fn what_is_no_log_is_left_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        for text in ["", "\n", "{}\n"] {
            fs::write(&path, text).unwrap();
            Log::of(&what(&path, LogFormat::Json)).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, "text").unwrap();
        Log::of(&what(&path, LogFormat::Local)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
