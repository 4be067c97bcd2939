//! `wharf doctor`: what this kernel and this user can do, and what that means.

use super::options::{Format, Global};
use super::output::{Outcome, listing, table};
use crate::io::features::{Feature, VARIABLE};
use crate::io::probe::{Answer, Finding, probe};

/// Runs `wharf doctor`. Nothing that is missing is an error of the doctor's.
pub(crate) fn run(_global: &Global, format: Format) -> Outcome {
    let findings = probe();
    listing(format.json, &findings, || report(&findings))
}

/// The table, and below it what to do about what is missing.
fn report(findings: &[Finding]) -> String {
    let rows = findings.iter().map(|finding| {
        let answer = match finding.answer {
            Answer::Yes => "yes",
            Answer::No => "no",
            Answer::Unknown => "?",
        };
        [finding.name.clone(), answer.to_owned(), finding.found.clone(), finding.meaning.clone()]
    });
    let mut text = table(["WHAT", "", "FOUND", "WHAT IT MEANS"], rows.collect());
    let advised: Vec<&Finding> = findings.iter().filter(|f| !f.advice.is_empty()).collect();
    if !advised.is_empty() {
        text += "\n\nTo change that:";
        for finding in advised {
            text.extend(["\n  ", &finding.name, ": ", &finding.advice]);
        }
    }
    let names = Feature::ALL.map(Feature::name).join(", ");
    text + &format!("\n\n{VARIABLE}, or `wharf daemon --without`, forces off: all, {names}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_has_advice() {
        let finding = |name: &str, answer, advice: &str| Finding {
            name: name.to_owned(),
            answer,
            found: "seen".to_owned(),
            meaning: "so it is".to_owned(),
            advice: advice.to_owned(),
        };
        let findings = [
            finding("kernel", Answer::Yes, ""),
            finding("/dev/net/tun", Answer::No, "`modprobe tun`"),
            finding("ping", Answer::Unknown, ""),
        ];
        insta::assert_snapshot!(report(&findings), @r"
        WHAT               FOUND  WHAT IT MEANS
        kernel        yes  seen   so it is
        /dev/net/tun  no   seen   so it is
        ping          ?    seen   so it is

        To change that:
          /dev/net/tun: `modprobe tun`

        WHARF_WITHOUT, or `wharf daemon --without`, forces off: all, peek-offset, udp-segment, udp-gro, ping-sockets, uso
        ");
    }
}
