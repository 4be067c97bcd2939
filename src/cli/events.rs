//! `wharf events`: what happened lately, or as it happens.

use clap::Args;

use super::human::or_dash;
use super::options::{Format, Global};
use super::output::{Outcome, line};
use crate::control::model::EventInfo;

/// `wharf events`
#[derive(Args, Debug)]
pub struct Events {
    /// Stay and tell what happens from now on
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs `wharf events`. JSON is one object a line, so that it can be followed.
pub(crate) fn run(global: &Global, args: &Events) -> Outcome {
    let mut expected = None;
    for event in global.client().events(args.follow)? {
        let event = event?;
        if expected.is_some_and(|seq| seq != event.seq) {
            global.note("some events were missed: this reader was too slow");
        }
        expected = Some(event.seq + 1);
        line(&if args.format.json { serde_json::to_string(&event)? } else { sentence(&event) })?;
    }
    Ok(0)
}

fn sentence(event: &EventInfo) -> String {
    let kind = serde_json::to_value(event.kind).ok();
    let kind = or_dash(kind.as_ref().and_then(|value| value.as_str()));
    format!("{}  {kind:<18} {}", timestamp(event.time_ms), event.text)
}

/// Milliseconds since 1970 as RFC 3339 in UTC. The civil calendar from a day number is Howard
/// Hinnant's `civil_from_days`: the year begins in March, so that leap days come last.
fn timestamp(ms: u64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::model::EventKind;

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
    fn an_event_is_one_line() {
        let event = EventInfo {
            seq: 7,
            time_ms: 0,
            kind: EventKind::EndpointAttached,
            network: Some("blue".to_owned()),
            endpoint: Some("web".to_owned()),
            text: "web is 10.20.0.2 on blue".to_owned(),
        };
        assert_eq!(
            sentence(&event),
            "1970-01-01T00:00:00.000Z  endpoint-attached  web is 10.20.0.2 on blue"
        );
    }
}
