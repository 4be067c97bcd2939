//! What `wharf doctor` will say, on this machine.

use wharf::io::probe::{Answer, probe};

use crate::support::isolated;

/// The other tests of this ring could not run otherwise, so here these answers are known.
#[test]
fn what_the_other_tests_need_is_found() {
    isolated("probes::what_the_other_tests_need_is_found", || {
        let findings = probe();
        for name in ["kernel", "/dev/net/tun", "TAP with offload", "packet sockets with offload"] {
            let finding = findings.iter().find(|finding| finding.name == name).unwrap();
            assert_eq!(finding.answer, Answer::Yes, "{finding:?}");
        }
        for finding in findings {
            println!(
                "{:?} {}: {} ({})",
                finding.answer, finding.name, finding.found, finding.meaning
            );
        }
    });
}
