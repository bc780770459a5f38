//! Sizes as users write them: go-units' `FromHumanSize` and `RAMInBytes`.

/// Reads `10k`, `1.5MB`, `20 m` with steps of 1000.
pub(crate) fn in_decimal(text: &str) -> Result<u64, String> {
    parse(text, 1000.0)
}

/// The same with steps of 1024.
pub(crate) fn in_binary(text: &str) -> Result<u64, String> {
    parse(text, 1024.0)
}

fn parse(text: &str, step: f64) -> Result<u64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let digits = text.rfind(|c: char| c.is_ascii_digit()).map_or(0, |last| last + 1);
    let (number, unit) = text.split_at(digits);
    let size: f64 = number.parse().map_err(|_| invalid())?;
    if size < 0.0 {
        return Err(invalid());
    }
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let power = match unit {
        "" => 0,
        one => ["k", "m", "g", "t", "p"].iter().position(|known| *known == one).ok_or_else(invalid)? + 1,
    };
    let power = i32::try_from(power).expect("there are five units");
    Ok((size * step.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, decimal, binary) in [
            ("32", 32, 32),
            ("32b", 32, 32),
            ("32k", 32_000, 32 << 10),
            ("32 kB", 32_000, 32 << 10),
            ("1.5MiB", 1_500_000, 3 << 19),
            ("2G", 2_000_000_000, 2 << 30),
        ] {
            assert_eq!((in_decimal(text), in_binary(text)), (Ok(decimal), Ok(binary)), "{text}");
        }
        for text in ["", "k", "-1", "1x", "1kk", "1  k"] {
            assert_eq!(in_decimal(text), Err(format!("invalid size: '{text}'")));
        }
    }
}
