//! Versions of the protocol, and what each has.

use serde_json::{Value, json};

use super::error::{CniError, Code};

/// Versions that are spoken, oldest first.
pub const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The newest of them.
pub const NEWEST: &str = "1.1.0";

/// A version that is spoken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Version {
    /// 0.3.0 and 0.3.1, which differ in words only.
    V03,
    /// Has CHECK.
    V04,
    /// Addresses no longer say their family.
    V10,
    /// Has GC and STATUS, and more fields in results.
    V11,
}

impl Version {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "0.3.0" | "0.3.1" => Self::V03,
            "0.4.0" => Self::V04,
            "1.0.0" => Self::V10,
            "1.1.0" => Self::V11,
            _ => return None,
        })
    }
}

/// The version of a configuration, which without one is that of the time before there were any.
pub(super) fn of_configuration(text: Option<&str>) -> Result<(Version, &str), CniError> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("0.1.0");
    Version::parse(text).map(|version| (version, text)).ok_or_else(|| {
        let details = format!("config is \"{text}\", plugin supports {SUPPORTED:?}");
        CniError::new(Code::IncompatibleVersion, "incompatible CNI versions").details(details)
    })
}

/// The answer to VERSION: in the asker's version if that is spoken.
pub(super) fn report(input: &[u8]) -> Result<String, CniError> {
    let asked = if input.iter().all(u8::is_ascii_whitespace) {
        Value::Null
    } else {
        serde_json::from_slice(input).map_err(|error| CniError::decode(&error))?
    };
    let asked = asked.get("cniVersion").and_then(Value::as_str).unwrap_or_default();
    let version = if Version::parse(asked).is_some() { asked } else { NEWEST };
    Ok(json!({ "cniVersion": version, "supportedVersions": SUPPORTED }).to_string())
}
