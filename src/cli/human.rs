//! Numbers as people read them.

/// Milliseconds since 1970, from which ages are counted.
pub(crate) fn unix_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

/// Milliseconds since 1970 as RFC 3339 in UTC. The civil calendar from a day number is Howard
/// Hinnant's `civil_from_days`: the year begins in March, so that leap days come last.
pub(crate) fn timestamp(ms: u64) -> String {
    let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (s, milli) = (ms_of_day / 1000, ms_of_day % 1000);
    let (hour, minute, second) = (s / 3600, s / 60 % 60, s % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Nanoseconds since 1970, in the same form.
pub(crate) fn timestamp_ns(ns: u64) -> String {
    let to_ms = timestamp(ns / 1_000_000);
    format!("{}{:06}Z", to_ms.trim_end_matches('Z'), ns % 1_000_000)
}

/// Bytes in binary units, three significant digits: `1.5 KiB`.
#[allow(clippy::cast_precision_loss, reason = "for showing only")]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A length of time in its one or two largest units: `850ms`, `12s`, `3m05s`, `4h`, `2d`.
pub(crate) fn millis(millis: u64) -> String {
    match millis / 1000 {
        0 => format!("{millis}ms"),
        s if s < 60 => format!("{s}s"),
        s if s < 600 => format!("{}m{:02}s", s / 60, s % 60),
        s if s < 3600 => format!("{}m", s / 60),
        s if s < 36_000 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        s if s < 86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// A length of time in seconds, as [`millis`].
pub(crate) fn seconds(seconds: u64) -> String {
    millis(seconds.saturating_mul(1000))
}

/// A count with its thousands apart: `1,234,567`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A list in one cell; `-` when there is nothing.
pub(crate) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

/// What may be missing; `-` then.
pub(crate) fn or_dash<T: ToString>(item: Option<T>) -> String {
    item.map_or_else(|| "-".to_owned(), |item| item.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_795_500_000_123, "2026-11-24T06:00:00.123Z"),
        ] {
            assert_eq!(timestamp(ms), text);
        }
    }

    #[test]
    fn bytes_keep_three_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024, "10.0 KiB"),
            (1_048_576, "1.00 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_show_their_largest_units() {
        let cases = [
            (0, "0ms"),
            (999, "999ms"),
            (12_400, "12s"),
            (185_000, "3m05s"),
            (1_800_000, "30m"),
            (3_725_000, "1h02m"),
            (43_200_000, "12h"),
            (180_000_000, "2d"),
        ];
        for (value, text) in cases {
            assert_eq!(millis(value), text);
        }
    }

    #[test]
    fn counts_have_their_thousands_apart() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn an_empty_cell_shows_a_dash() {
        assert_eq!(list(Vec::<u8>::new()), "-");
        assert_eq!(list([1, 2]), "1, 2");
        assert_eq!(or_dash(None::<u8>), "-");
    }
}
