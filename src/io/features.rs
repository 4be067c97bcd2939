//! What newer kernels have and older ones have not: one list, and a way to force each item off, so that
//! the fallback can be tried on any kernel and a broken feature can be avoided without a new release.
//!
//! Forced off for the whole process: by `WHARF_WITHOUT`, which the daemon that `wharf run` starts inherits, or
//! by [`force_off`].

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// The environment's variable: names separated by commas, or `all`.
pub const VARIABLE: &str = "WHARF_WITHOUT";

/// One thing that a kernel may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// SO_PEEK_OFF on TCP (Linux 6.9, for IPv6 6.12). Without it bytes are peeked from the start again.
    PeekOffset,
    /// UDP_SEGMENT on sockets. Without it each datagram is sent by a call of its own.
    UdpSegment,
    /// UDP_GRO on sockets. Without it each datagram is received by itself.
    UdpGro,
    /// Ping sockets. Without them raw sockets serve, where they are allowed.
    PingSockets,
    /// UDP super-frames on a TAP (Linux 6.2). Without them they are cut before the TAP.
    Uso,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::PeekOffset, Self::UdpSegment, Self::UdpGro, Self::PingSockets, Self::Uso];

    /// Its name in [`VARIABLE`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::PeekOffset => "peek-offset",
            Self::UdpSegment => "udp-segment",
            Self::UdpGro => "udp-gro",
            Self::PingSockets => "ping-sockets",
            Self::Uso => "uso",
        }
    }

    /// Whether it may be used, if the kernel has it.
    pub fn is_allowed(self) -> bool {
        !forced_off().0.contains(&self)
    }
}

/// A set of features, as users write it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Features(Vec<Feature>);

/// A name that is no feature's.
#[derive(Debug, thiserror::Error)]
#[error("there is no kernel feature `{name}`; there are: all, {}", names())]
pub struct UnknownFeature {
    name: String,
}

fn names() -> String {
    Feature::ALL.map(Feature::name).join(", ")
}

impl FromStr for Features {
    type Err = UnknownFeature;

    fn from_str(text: &str) -> Result<Self, UnknownFeature> {
        let mut features = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match Feature::ALL.into_iter().find(|feature| feature.name() == name) {
                Some(feature) => features.push(feature),
                None if name == "all" => features.extend(Feature::ALL),
                None => return Err(UnknownFeature { name: name.to_owned() }),
            }
        }
        Ok(Self(features))
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|feature| feature.name()).collect();
        f.write_str(&names.join(","))
    }
}

static FORCED_OFF: OnceLock<Features> = OnceLock::new();

/// Decides for this process what is not used. Too late once something has been asked for.
pub fn force_off(features: Features) {
    let _ = FORCED_OFF.set(features);
}

/// What this process does not use. A variable that makes no sense forces nothing off: who starts a
/// daemon with it is told.
fn forced_off() -> &'static Features {
    FORCED_OFF.get_or_init(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        text.parse().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_named_one_by_one_or_all_at_once() {
        assert_eq!("".parse::<Features>().unwrap(), Features::default());
        assert_eq!("all".parse::<Features>().unwrap().0, Feature::ALL);
        let two: Features = "uso, peek-offset".parse().unwrap();
        assert_eq!((two.0.len(), two.to_string().as_str()), (2, "uso,peek-offset"));
        let error = "uso,gro".parse::<Features>().unwrap_err().to_string();
        assert!(error.contains("`gro`") && error.contains("udp-gro"), "{error}");
    }
}
