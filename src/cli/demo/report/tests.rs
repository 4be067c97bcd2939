use super::*;
use crate::cli::demo::check::{Family, Pair, Proto};
use crate::cli::demo::icmp::Answer;

fn pair(from: &str, to: &str) -> Pair {
    Pair { from: from.parse().unwrap(), to: to.parse().unwrap() }
}

fn outcome(proto: Proto, family: Family, sent: Pair, seen: Option<Pair>) -> Outcome {
    Outcome {
        proto,
        family,
        from: "app",
        at: "web",
        ok: true,
        sent,
        seen,
        answer: None,
        micros: Some(1_234),
        error: None,
    }
}

#[test]
fn lines_align_whatever_was_seen() {
    let unchanged = pair("10.20.0.2:40000", "10.20.0.3:5000");
    let ping = pair("[fd20::2]:0", "[fd99::9]:0");
    let hidden = pair("[fd99::2]:0", "[fd99::9]:0");
    let refused = Outcome {
        answer: Some(Answer {
            by: "10.20.0.1".parse().unwrap(),
            kind: 3,
            code: 13,
            quoted: pair("10.20.0.2:40000", "10.30.0.2:5000"),
        }),
        ..outcome(Proto::Udp, Family::V4, pair("10.20.0.2:40000", "10.30.0.2:5000"), None)
    };
    let failed = Outcome {
        ok: false,
        micros: None,
        error: Some("cannot connect: no answer within 2s".to_owned()),
        ..outcome(Proto::Tcp, Family::V4, pair("10.20.0.2:0", "10.20.0.3:5000"), None)
    };
    let lines = [
        outcome(Proto::Tcp, Family::V4, unchanged, Some(unchanged)),
        outcome(Proto::Ping, Family::V6, ping, Some(hidden)),
        refused,
        failed,
    ];
    let lines: Vec<_> = lines.iter().map(|outcome| check_line(Style::Plain, outcome)).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    ✓ TCP  IPv4  10.20.0.2:40000 → 10.20.0.3:5000   seen unchanged                               1.23 ms
    ✓ ping IPv6  fd20::2 → fd99::9                  seen as fd99::2 → fd99::9                    1.23 ms
    ✓ UDP  IPv4  10.20.0.2:40000 → 10.30.0.2:5000   ICMP 3/13, prohibited, from 10.20.0.1        1.23 ms
    ✗ TCP  IPv4  10.20.0.2 → 10.20.0.3:5000  cannot connect: no answer within 2s
    ");
}

#[test]
fn only_a_terminal_gets_colours() {
    let unchanged = pair("10.20.0.2:40000", "10.20.0.3:5000");
    let outcome = outcome(Proto::Tcp, Family::V4, unchanged, Some(unchanged));
    assert!(check_line(Style::Colour, &outcome).contains("\x1b[32m✓\x1b[0m"));
    for style in [Style::Plain, Style::Quiet] {
        assert!(!check_line(style, &outcome).contains('\x1b'));
    }
}

#[test]
fn a_check_that_fails_fails_the_demo() {
    let mut report = Report::new(true, false);
    report.chapter("One").unwrap();
    let same = pair("10.20.0.2:40000", "10.20.0.3:5000");
    report.check(outcome(Proto::Tcp, Family::V4, same, Some(same))).unwrap();
    assert_eq!(report.failed(), 0);
    let bad = Outcome { ok: false, ..outcome(Proto::Tcp, Family::V4, same, None) };
    report.check(bad).unwrap();
    assert_eq!(report.failed(), 1);
}
