//! What may be a name.

use std::collections::BTreeMap;

use super::error::ControlError;
use crate::base::limits::{LABEL_BYTES_MAX, LABELS_MAX, NAME_MAX};

/// Words that mean something else where a network is named.
const NETWORK_WORDS: [&str; 3] = ["host", "none", "container"];

/// Docker's rule for names, and DNS's bound on their length: they become host names.
pub(super) fn check(kind: &'static str, name: &str) -> Result<(), ControlError> {
    let bytes = name.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"_.-".contains(b);
    let well_formed =
        bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.iter().all(inner);
    if well_formed && name.len() <= NAME_MAX {
        return Ok(());
    }
    Err(ControlError::invalid(
        format!("`{name}` cannot be the name of {kind}"),
        format!(
            "use letters, digits, `_`, `.` and `-`, the first a letter or digit, at most {NAME_MAX}"
        ),
    ))
}

/// A name for a node.
pub(super) fn check_node(name: &str) -> Result<(), ControlError> {
    check("a node", name)
}

/// A name for a network: also none of the words that `--network` takes.
pub(super) fn check_network(name: &str) -> Result<(), ControlError> {
    check("a network", name)?;
    if NETWORK_WORDS.contains(&name) {
        return Err(ControlError::invalid(
            format!(
                "`{name}` cannot be the name of a network: `--network {name}` means something else"
            ),
            "choose another name",
        ));
    }
    Ok(())
}

/// A name for an uplink: not `none`, which takes an uplink away.
pub(super) fn check_uplink(name: &str) -> Result<(), ControlError> {
    check("an uplink", name)?;
    if name == "none" {
        return Err(ControlError::invalid(
            "`none` cannot be the name of an uplink: it means that there is none",
            "choose another name",
        ));
    }
    Ok(())
}

/// Labels and aliases of one endpoint, within their bounds.
pub(super) fn check_labels(
    labels: &BTreeMap<String, String>,
    aliases: &[String],
) -> Result<(), ControlError> {
    if labels.len() > LABELS_MAX || aliases.len() > LABELS_MAX {
        return Err(ControlError::invalid(
            format!("{} labels and {} aliases are too many", labels.len(), aliases.len()),
            format!("at most {LABELS_MAX} of each"),
        ));
    }
    if labels.iter().any(|(k, v)| k.is_empty() || k.len().max(v.len()) > LABEL_BYTES_MAX) {
        return Err(ControlError::invalid(
            "a label has no key, or is too long",
            format!("at most {LABEL_BYTES_MAX} bytes for key and value each"),
        ));
    }
    aliases.iter().try_for_each(|alias| check("an alias", alias))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_docker_s_rule() {
        let long = "a".repeat(64);
        for good in ["web", "Web-1.x_y", "0", &long[..63]] {
            assert!(check("an endpoint", good).is_ok(), "{good}");
        }
        for bad in ["", "-web", ".x", "a b", "a/b", "ä", "a\n", &long] {
            assert!(check("an endpoint", bad).is_err(), "{bad}");
        }
        for bad in ["host", "none", "container"] {
            assert!(check_network(bad).is_err() && check("an endpoint", bad).is_ok(), "{bad}");
        }
        assert!(check_uplink("none").is_err() && check_uplink("lan").is_ok());
    }

    #[test]
    fn labels_are_bounded() {
        let labels = |n: usize| (0..n).map(|i| (i.to_string(), String::new())).collect();
        assert!(check_labels(&labels(LABELS_MAX), &[]).is_ok());
        assert!(check_labels(&labels(LABELS_MAX + 1), &[]).is_err());
        assert!(check_labels(&BTreeMap::new(), &["a b".into()]).is_err());
        let long = [("k".to_owned(), "v".repeat(LABEL_BYTES_MAX + 1))].into();
        assert!(check_labels(&long, &[]).is_err());
    }
}
