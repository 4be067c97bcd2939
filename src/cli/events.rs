//! `wharf events`: what happened lately, or as it happens.

use clap::Args;

use super::human::timestamp;
use super::options::{Format, Global};
use super::output::{Outcome, line};
use crate::control::model::EventInfo;

/// `wharf events`
#[derive(Args, Debug)]
pub(crate) struct Events {
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
    let line = format!("{}  {:<18} {}", timestamp(event.time_ms), event.kind.name(), event.text);
    match &event.hint {
        Some(hint) => format!("{line}; to do: {hint}"),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::model::EventKind;

    #[test]
    fn an_event_is_one_line() {
        let event = EventInfo {
            seq: 7,
            time_ms: 0,
            kind: EventKind::EndpointAttached,
            network: Some("blue".to_owned()),
            endpoint: Some("web".to_owned()),
            text: "web is 10.20.0.2 on blue".to_owned(),
            hint: None,
        };
        assert_eq!(
            sentence(&event),
            "1970-01-01T00:00:00.000Z  endpoint-attached  web is 10.20.0.2 on blue"
        );
        let (text, hint) = ("web is too slow".to_owned(), Some("give it more CPU".to_owned()));
        let event = EventInfo { kind: EventKind::QueueFull, text, hint, ..event };
        assert!(sentence(&event).ends_with("web is too slow; to do: give it more CPU"));
    }
}
