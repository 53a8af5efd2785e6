//! Quantities as people write them: `250m` of a CPU, `64Mi`, `30s`, `60%`. Parsed to integers, printed back short.

use std::net::SocketAddr;

/// Milliseconds from `500ms`, `10s`, `2m`, `1h30m`, `7d`.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("\"{text}\" is not a duration; expected a number and a unit, for example 500ms, 10s, 2m or 1h30m");
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        total_ms = number.checked_mul(unit_ms).and_then(|part| total_ms.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[letters..];
    }
    Ok(total_ms)
}

/// An address to listen on.
pub fn listening(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is no address to listen on; expected IP:PORT, for example 127.0.0.1:7400 or [::]:7400")
    })
}

/// The two largest units of a duration: `3m12s`, `2d4h`, `450ms`.
pub fn show_ms(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let first = UNITS.iter().position(|(unit_ms, _)| ms >= *unit_ms).unwrap_or(UNITS.len() - 1);
    let (unit_ms, name) = UNITS[first];
    let head = format!("{}{name}", ms / unit_ms);
    match UNITS.get(first + 1) {
        Some((next_ms, next)) if ms % unit_ms >= *next_ms => format!("{head}{}{next}", ms % unit_ms / next_ms),
        _ => head,
    }
}

/// Bytes from `64Mi`, `1Gi`, `512k`, `1G`, `1073741824`. With `i` powers of 1024, without powers of 1000.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a size; expected a number and a unit, for example 64Mi, 1Gi, 500M or 1G");
    let trimmed = text.trim();
    let letters = trimmed.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(trimmed.len());
    let unit: u64 = match &trimmed[letters..] {
        "" | "B" => 1,
        "k" | "K" | "kB" | "KB" => 1_000,
        "Ki" | "KiB" => 1 << 10,
        "M" | "MB" => 1_000_000,
        "Mi" | "MiB" => 1 << 20,
        "G" | "GB" => 1_000_000_000,
        "Gi" | "GiB" => 1 << 30,
        "T" | "TB" => 1_000_000_000_000,
        "Ti" | "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    thousandths(&trimmed[..letters], u128::from(unit)).ok_or_else(wrong)
}

/// Thousandths of a CPU from `250m`, `0.5`, `2`.
pub fn cpu_milli(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not an amount of CPU; expected for example 250m, 0.5 or 2");
    let trimmed = text.trim();
    match trimmed.strip_suffix('m') {
        Some(milli) => milli.parse().map_err(|_| wrong()),
        None => thousandths(trimmed, 1_000).ok_or_else(wrong),
    }
}

/// Permille from `60%` or `62.5%`.
pub fn permille(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a percentage; expected for example 60%");
    let number = text.trim().strip_suffix('%').ok_or_else(wrong)?;
    thousandths(number.trim(), 10).ok_or_else(wrong)
}

/// `number * unit` without floats, where number is a decimal with up to nine places.
fn thousandths(number: &str, unit: u128) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && !digits(fraction)) || fraction.len() > 9 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled: u128 = format!("{whole}{fraction}").parse().ok()?;
    u64::try_from(scaled.checked_mul(unit)? / scale).ok()
}

/// The largest binary unit that keeps the size short and whole: `64Mi`, `1.5Gi`, `0`.
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        None => bytes.to_string(),
        Some((unit, name)) => {
            let tenths = (u128::from(bytes) * 10 / u128::from(*unit)) as u64;
            match (tenths % 10, tenths >= 1_000) {
                (0, _) | (_, true) => format!("{}{name}", tenths / 10),
                (rest, false) => format!("{}.{rest}{name}", tenths / 10),
            }
        }
    }
}

/// `250m`, `2`, `1.5`.
pub fn show_cpu(milli: u64) -> String {
    match (milli / 1_000, milli % 1_000) {
        (whole, 0) => whole.to_string(),
        (0, rest) => format!("{rest}m"),
        (whole, rest) => format!("{whole}.{}", format!("{rest:03}").trim_end_matches('0')),
    }
}

/// `60%`, `62.5%`.
pub fn show_permille(permille: u64) -> String {
    match permille % 10 {
        0 => format!("{}%", permille / 10),
        rest => format!("{}.{rest}%", permille / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("0s", 0)]
        {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "10", "s", "-3s", "1.5s", "10 s", "3w", "99999999999999999999s", "999999999999999999d"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
        for (ms, text) in
            [(0, "0s"), (450, "450ms"), (12_000, "12s"), (192_000, "3m12s"), (180_000, "3m"), (187_200_000, "2d4h")]
        {
            assert_eq!(show_ms(ms), text);
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [("64Mi", 64 << 20), ("1G", 1_000_000_000), ("1.5Gi", 3 << 29), ("123", 123), ("2k", 2_000)]
        {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "Mi", "-1Mi", "1Mx", "1.Mi", ".5Mi", "1e3", "99999999999Ti"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for (size, text) in
            [(0, "0"), (1023, "1023"), (64 << 20, "64Mi"), (3 << 29, "1.5Gi"), ((150 << 20) + (300 << 10), "150Mi")]
        {
            assert_eq!(show_bytes(size), text);
        }
    }

    #[test]
    fn processors_and_shares() {
        for (text, milli) in [("250m", 250), ("0.5", 500), ("2", 2_000), ("1.25", 1_250)] {
            assert_eq!(cpu_milli(text), Ok(milli), "{text}");
        }
        for text in ["", "m", "-1", "1.5.2", "half", "1,5", "0.5m"] {
            assert!(cpu_milli(text).is_err(), "{text}");
        }
        assert_eq!((permille("60%"), permille("62.5%")), (Ok(600), Ok(625)));
        assert!(permille("60").is_err() && permille("-3%").is_err());
        assert_eq!((show_cpu(250), show_cpu(2_000), show_cpu(1_250)), ("250m".into(), "2".into(), "1.25".into()));
        assert_eq!((show_permille(600), show_permille(625)), ("60%".into(), "62.5%".into()));
    }
}
