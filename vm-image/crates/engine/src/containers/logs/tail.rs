//! Finding the last lines of a file without reading all of it.

use std::io::{self, Read, Seek, SeekFrom};

const BLOCK: u64 = 64 * 1024;

/// Where the last `lines` lines begin.
pub(super) fn start_of_last(file: &mut (impl Read + Seek), lines: usize) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut end = length;
    let mut left = lines;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.by_ref().take(end - start).read_to_end(&mut block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            let position = start + at as u64 + 1;
            // The line feed at the very end ends the last line; the others begin one.
            if *byte == b'\n' && position != length {
                if left <= 1 {
                    return Ok(if lines == 0 { length } else { position });
                }
                left -= 1;
            }
        }
        end = start;
    }
    Ok(if lines == 0 { length } else { 0 })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_last_lines_are_found_across_blocks() {
        let text: String = (0..40_000).map(|n| format!("{n}\n")).collect();
        let start = |lines| start_of_last(&mut Cursor::new(text.as_bytes()), lines).unwrap() as usize;
        assert_eq!(&text[start(2)..], "39998\n39999\n");
        assert_eq!(text[start(30_000)..].lines().count(), 30_000);
        assert_eq!(start(0), text.len());
        assert_eq!((start(40_000), start(99_999)), (0, 0));
    }
}
